"""Saving and loading: lossless on what capture makes, a typed error on everything else."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from taut.errors import ArtefactError, GraphError, StorageError, TamperedError, TautError, TruncatedError, VersionError
from taut.graph import Builder, Graph, Interpreter, ScalarType, TensorType, load_graph, save_graph, structural_hash

VECTOR = TensorType((4,), torch.float32)


def small_graph() -> Graph:
    """x * w + b, with a literal that no JSON number can say."""
    builder = Builder()
    x = builder.input("x", VECTOR)
    scaled = builder.add("aten.mul.Tensor", x, builder.constant(torch.arange(4.0), "w"), outputs=VECTOR)
    shifted = builder.add("aten.add.Tensor", scaled, builder.constant(torch.ones(4), "b"), outputs=VECTOR)
    filled = builder.add("aten.nan_to_num.default", shifted, math.inf, -math.inf, outputs=VECTOR)
    return builder.finish({"y": [filled, (shifted, None, 3, 1.5, math.nan)]})


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "graph.json", tmp_path / "model.safetensors"
    save_graph(small_graph(), *paths)
    return paths


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_literals_and_structure_survive(saved: tuple[Path, Path]) -> None:
    loaded = load_graph(*saved)
    assert structural_hash(loaded) == structural_hash(small_graph())
    assert loaded.nodes == small_graph().nodes
    outputs: Any = loaded.outputs
    assert isinstance(outputs["y"], list)
    assert outputs["y"][1][1:4] == (None, 3, 1.5)
    assert math.isnan(outputs["y"][1][4])


def test_a_channels_last_constant_keeps_its_layout(tmp_path: Path) -> None:
    weight = torch.randn(5, 3, 2, 2).to(memory_format=torch.channels_last)
    builder = Builder()
    x = builder.input("x", TensorType((1, 3, 2, 2), torch.float32))
    kind = TensorType((1, 5, 1, 1), torch.float32)
    graph = builder.finish(builder.add("aten.conv2d.default", x, builder.constant(weight, "weight"), outputs=kind))
    save_graph(graph, tmp_path / "g.json", tmp_path / "g.safetensors")
    loaded = load_graph(tmp_path / "g.json", tmp_path / "g.safetensors")
    (constant,) = loaded.constants.values()
    assert constant.stride() == weight.stride()
    assert torch.equal(constant, weight)
    assert loaded == graph


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8, torch.uint8, torch.int64, torch.bool])
def test_constants_of_every_common_dtype_survive(dtype: torch.dtype, tmp_path: Path) -> None:
    value = torch.arange(-3, 3).to(dtype)
    builder = Builder()
    graph = builder.finish(builder.constant(value, "value"))
    save_graph(graph, tmp_path / "g.json", tmp_path / "g.safetensors")
    assert torch.equal(Interpreter(load_graph(tmp_path / "g.json", tmp_path / "g.safetensors"))(), value)


def test_views_of_one_memory_are_stored_apart(tmp_path: Path) -> None:
    whole = torch.arange(8.0)
    builder = Builder()
    graph = builder.finish((builder.constant(whole[:4], "a"), builder.constant(whole[4:], "b")))
    save_graph(graph, tmp_path / "g.json", tmp_path / "g.safetensors")
    first, second = Interpreter(load_graph(tmp_path / "g.json", tmp_path / "g.safetensors"))()
    assert first.tolist() == [0, 1, 2, 3]
    assert second.tolist() == [4, 5, 6, 7]


def test_weights_changed_after_saving_do_not_reach_the_file(tmp_path: Path) -> None:
    weight = torch.ones(4)
    builder = Builder()
    graph = builder.finish(builder.constant(weight, "weight"))
    save_graph(graph, tmp_path / "g.json", tmp_path / "g.safetensors")
    weight += 1
    assert Interpreter(load_graph(tmp_path / "g.json", tmp_path / "g.safetensors"))().tolist() == [1, 1, 1, 1]
    with pytest.raises(GraphError, match="weight does not match its hash"):
        save_graph(graph, tmp_path / "g.json", tmp_path / "g.safetensors")


def _nested(depth: int) -> Any:
    value: Any = ["%", 0, 0]
    for _ in range(depth):
        value = ["tuple", value]
    return value


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "writes to its input": lambda d: d["graph"]["nodes"][3].update(op="aten.add_.Tensor"),
    "reads a file": lambda d: d["graph"]["nodes"][3].update(op="aten.from_file.default", args=["/etc/passwd"]),
    "raw storage": lambda d: d["graph"]["nodes"][3].update(op="aten.set_.default"),
    "foreign namespace": lambda d: d["graph"]["nodes"][3].update(op="prim.python.default"),
    "not a name": lambda d: d["graph"]["nodes"][3].update(op="aten.add.Tensor; import os"),
    "dunder": lambda d: d["graph"]["nodes"][3].update(op="aten.__class__.__init__"),
    "unknown operator": lambda d: d["graph"]["nodes"][3].update(op="aten.no_such.default"),
    "no list of nodes": lambda d: d["graph"].update(nodes="many"),
    "node is a number": lambda d: d["graph"]["nodes"].insert(0, 7),
    "later reference": lambda d: d["graph"]["nodes"][2]["args"].insert(0, ["%", 9, 0]),
    "negative reference": lambda d: d["graph"]["nodes"][2].update(args=[["%", -1, 0], ["%", 0, 0]]),
    "boolean reference": lambda d: d["graph"]["nodes"][2].update(args=[["%", True, 0], ["%", 0, 0]]),
    "huge integer": lambda d: d["graph"]["nodes"][3]["args"].append(2**100),
    "deep argument": lambda d: d["graph"]["nodes"][3].update(args=[_nested(200)]),
    "deep output": lambda d: d["graph"].update(outputs=_nested(200)),
    "expression as code": lambda d: d["graph"]["symbols"].update({"__import__('os')": [2, 3, True]}),
    "unknown head": lambda d: d["graph"]["guards"].append([["system", 1], ""]),
    "tower of powers": lambda d: d["graph"]["guards"].append([["==", ["^", ["^", 9, 64], 64], 1], ""]),
    "division by zero": lambda d: d["graph"]["guards"].append([["==", ["^", 0, -1], 1], ""]),
    "expression of lists": lambda d: d["graph"]["guards"].append([[["+"]], ""]),
    "relation plus one": lambda d: d["graph"]["guards"].append([["+", ["==", "s0", 1], 1], ""]),
    "undeclared symbol": lambda d: d["graph"]["guards"].append([["==", "s9", 1], ""]),
    "empty range": lambda d: d["graph"]["symbols"].update(s0=[5, 2, True]),
    "range of text": lambda d: d["graph"]["symbols"].update(s0=["5", None, True]),
    "type of text": lambda d: d["graph"]["nodes"][0].update(outputs=["float32"]),
    "no such dtype": lambda d: d["graph"]["nodes"][0].update(outputs=[["tensor", [4], "float33", "contiguous"]]),
    "negative dimension": lambda d: d["graph"]["nodes"][0].update(outputs=[["tensor", [-4], "float32", "contiguous"]]),
    "shape of another rank": lambda d: d["graph"]["nodes"][1].update(
        outputs=[["tensor", [2, 2], "float32", "contiguous"]]
    ),
    "output that is no value": lambda d: d["graph"].update(outputs=["%", 99, 0]),
    "inputs of text": lambda d: d["graph"].update(inputs=["x"]),
    "missing input": lambda d: d["graph"].update(inputs=[]),
    "keyword arguments as list": lambda d: d["graph"]["nodes"][3].update(kwargs=[1]),
    "too many arguments": lambda d: d["graph"]["nodes"][3].update(args=[["%", 0, 0]] * 9),
    "no graph": lambda d: d.pop("graph"),
    "graph is null": lambda d: d.update(graph=None),
    "another format": lambda d: d.update(format="onnx"),
    "version of text": lambda d: d.update(version="1"),
    "layouts of numbers": lambda d: d.update(channels_last=[1]),
    "layout of nothing": lambda d: d.update(channels_last=["abc"]),
    "unknown field": lambda d: d["graph"]["nodes"][3].update(code="import os"),
    "stray region": lambda d: d["graph"]["nodes"][3].update(regions=[json.loads(json.dumps(d["graph"]))]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_structure_is_refused(case: str, saved: tuple[Path, Path]) -> None:
    edit(saved[0], HOSTILE[case])
    with pytest.raises((ArtefactError, GraphError)):
        load_graph(*saved)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", "[" * 100_000, '{"a":' * 50_000, "NaN", "1" * 10_000, '"\\ud800"', "\x00", "{}"],
    ids=range(11),
)
def test_text_that_is_no_graph_is_refused(text: str, saved: tuple[Path, Path]) -> None:
    saved[0].write_text(text)
    with pytest.raises(ArtefactError):
        load_graph(*saved)


def test_bytes_that_are_no_text_are_refused(saved: tuple[Path, Path]) -> None:
    saved[0].write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtefactError):
        load_graph(*saved)


def test_every_truncation_is_refused(saved: tuple[Path, Path]) -> None:
    for path in saved:
        content = path.read_bytes()
        for keep in range(0, len(content) - 1, max(1, len(content) // 40)):
            path.write_bytes(content[:keep])
            with pytest.raises(TruncatedError):
                load_graph(*saved)
        path.write_bytes(content)
    load_graph(*saved)


def test_every_flipped_byte_is_refused_or_harmless(saved: tuple[Path, Path]) -> None:
    """A flip in a name or a source line changes nothing that the graph computes."""
    expected = structural_hash(small_graph())
    for path in saved:
        content = path.read_bytes()
        for position in range(0, len(content), max(1, len(content) // 60)):
            path.write_bytes(content[:position] + bytes([content[position] ^ 0x15]) + content[position + 1 :])
            try:
                loaded = load_graph(*saved)
            except TautError:
                continue
            assert structural_hash(loaded) == expected
        path.write_bytes(content)


def test_a_changed_literal_is_called_tampering(saved: tuple[Path, Path]) -> None:
    edit(saved[0], lambda d: d["graph"]["nodes"][4]["args"].__setitem__(1, 7))
    with pytest.raises((TamperedError, GraphError)):
        load_graph(*saved)


def test_a_newer_version_says_so(saved: tuple[Path, Path]) -> None:
    edit(saved[0], lambda d: d.update(version=2))
    with pytest.raises(VersionError, match="install a newer taut"):
        load_graph(*saved)


@pytest.mark.parametrize("index", [0, 1])
def test_a_missing_file_is_named(index: int, saved: tuple[Path, Path]) -> None:
    saved[index].unlink()
    with pytest.raises(TruncatedError, match=f"{saved[index].name} is missing"):
        load_graph(*saved)


def test_a_full_disk_leaves_the_old_files_whole(saved: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = [path.read_bytes() for path in saved]

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        save_graph(small_graph(), *saved)
    assert [path.read_bytes() for path in saved] == before
    assert sorted(item.name for item in saved[0].parent.iterdir()) == ["graph.json", "model.safetensors"]


def test_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        save_graph(small_graph(), tmp_path / "none" / "g.json", tmp_path / "none" / "g.safetensors")


def test_a_dtype_that_files_cannot_hold_is_named(tmp_path: Path) -> None:
    builder = Builder()
    graph = builder.finish(builder.constant(torch.ones(2, dtype=torch.complex64), "phase"))
    with pytest.raises(GraphError, match="complex64"):
        save_graph(graph, tmp_path / "g.json", tmp_path / "g.safetensors")


def test_scalar_inputs_survive(tmp_path: Path) -> None:
    builder = Builder()
    n = builder.input("n", ScalarType("int"))
    graph = builder.finish(builder.add("sym.mul", n, 3, outputs=ScalarType("int")))
    save_graph(graph, tmp_path / "g.json", tmp_path / "g.safetensors")
    assert Interpreter(load_graph(tmp_path / "g.json", tmp_path / "g.safetensors"))(5) == 15
