"""A compiled model as a folder: what comes back is what was written, on any host, without machine code."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from taut.codegen import Recipe
from taut.compile import (
    CallableProgram,
    CompiledModel,
    compile_model,
    example_of,
    failed_kernels,
    inspect_program,
    load,
    random_inputs,
    save,
)
from taut.cost import Peaks
from taut.errors import ArgumentError, ArtefactError, BuildError, GuardError, StorageError

pytestmark = pytest.mark.skipif(find_spec("halide") is None, reason="the extra compile is not installed")


class Scorer(torch.nn.Module):
    """Indices in, a dictionary out; the sort has no kernel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.score = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 4)

    def forward(self, ids: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.score(self.table(ids)) * scale
        return {"scores": scores, "best": torch.sort(scores, descending=True)[0][..., 0]}


EXAMPLE = (torch.arange(12).reshape(3, 4), torch.ones(4))


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    batch = {0: torch.export.Dim.AUTO}
    return compile_model(Scorer().eval(), EXAMPLE, dynamic_shapes=(batch, None))


@pytest.fixture(scope="module")
def folder(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(compiled, tmp_path_factory.mktemp("programs") / "scorer.taut", example_inputs=EXAMPLE)


@pytest.fixture(scope="module")
def peaks() -> Peaks:
    bandwidth = {"l1": 4e11, "l2": 2e11, "l3": 1e11, "dram": 2e10}
    caches = {"l1": 48 * 1024, "l2": 1024**2, "l3": 32 * 1024**2}
    return Peaks(1, {"fp32": 1e11}, bandwidth, caches, {"interpreter": 1e-6, "eager": 4e-6})


def test_a_program_comes_back(compiled: CompiledModel, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["program.json", "program.safetensors"]
    loaded = load(folder)
    ids, scale = torch.randint(0, 50, (7, 4)), torch.randn(4)
    expected = compiled(ids, scale)
    for found in (loaded(ids, scale), loaded(ids, scale=scale), loaded(scale=scale, ids=ids)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(GuardError, match="ids"):
        loaded(ids[:, :3], scale)
    with pytest.raises(GuardError, match="scale"):
        loaded(ids)


class Branch(torch.nn.Module):
    """Sorts positive sums, which runs on ATen in a function of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: torch.sort(x, 1)[0], lambda x: -x, (x,))


def test_functions_of_branches_come_back(tmp_path: Path, peaks: Peaks) -> None:
    x = torch.arange(12.0).reshape(3, 4).flip(1)
    model = compile_model(Branch(), (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    loaded = load(save(model, tmp_path / "branch.taut"))
    assert torch.equal(loaded(x), x.flip(1))
    assert torch.equal(loaded(-x), x)
    found = inspect_program(loaded, [x], peaks)
    calls = {step.function: step.calls for step in found.steps if step.function != "main"}
    assert sorted(calls.values()) == [0, 1]
    assert [step.shapes[-1] for step in found.steps if step.kind == "aten"] == [(3, 4)]


def test_it_holds_no_machine_code(folder: Path) -> None:
    assert b"\x7fELF" not in b"".join(path.read_bytes() for path in folder.iterdir())


def test_a_loaded_program_can_be_saved_again(folder: Path, tmp_path: Path) -> None:
    again = save(load(folder), tmp_path / "again.taut")
    assert (again / "program.json").read_bytes() == (folder / "program.json").read_bytes()


def test_nothing_is_overwritten_unasked(compiled: CompiledModel, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="scorer"):
        save(compiled, folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="compiled program to replace"):
        save(compiled, tmp_path / "notes", force=True)
    with pytest.raises(StorageError, match="no such folder"):
        save(compiled, tmp_path / "none" / "p.taut")
    save(compiled, tmp_path / "p.taut")
    save(compiled, tmp_path / "p.taut", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "p.taut"]


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no such folder"):
        load(tmp_path / "none")
    with pytest.raises(ArtefactError, match=r"program\.json"):
        load(tmp_path)


def test_a_kernel_that_this_host_cannot_generate_is_named(compiled: CompiledModel, tmp_path: Path) -> None:
    program = compiled.program
    kernels = [
        dataclasses.replace(kernel, recipe=Recipe("none", kernel.recipe.operands)) if kernel.recipe else kernel
        for kernel in program.kernels
    ]
    broken = CallableProgram(dataclasses.replace(program, kernels=tuple(kernels)), compiled.session, compiled._checker)
    with pytest.raises(BuildError, match="linear"):
        load(save(broken, tmp_path / "broken.taut"))


def test_the_example_is_noted_without_its_values(folder: Path) -> None:
    program = load(folder).program
    example = example_of(program)
    assert example is not None
    assert example == [((3, 4), 11), ((4,), 0)]
    ids, scale = random_inputs(program.parameters, *zip(*example, strict=True))
    assert isinstance(ids, torch.Tensor)
    assert ids.shape == (3, 4)
    assert 0 <= int(ids.min()) <= int(ids.max()) <= 11
    assert isinstance(scale, torch.Tensor)
    assert scale.dtype == torch.float32


@pytest.mark.parametrize("note", ["", "no json", "[[[3, 4], 11]]", "[[[3, -4], 1], [[4], 0]]", "[" * 10_000, "{}", "7"])
def test_a_strange_note_is_no_example(compiled: CompiledModel, note: str) -> None:
    program = dataclasses.replace(compiled.program, notes={"example": note, "failed": note})
    assert example_of(program) is None
    assert failed_kernels(program) == {}


def test_an_inspection_accounts_for_the_whole_program(folder: Path, peaks: Peaks) -> None:
    model = load(folder)
    found = inspect_program(model, EXAMPLE, peaks)
    assert found.inputs == {"ids": (3, 4), "scale": (4,)}
    assert found.fallbacks == {"aten.sort.default": 1}
    assert {step.kind for step in found.steps} >= {"generated", "prebuilt", "aten"}
    linear = next(step for step in found.steps if step.name == "linear")
    assert linear.shapes[0] == (12, 16)
    assert linear.flops == 12 * 4 * (2 * 16 + len(linear.operations))
    assert linear.predicted_seconds is not None
    assert linear.calls == 1
    assert linear.measured_seconds > 0
    (memory,) = found.memory
    assert memory.arena_bytes is not None
    assert memory.lower_bound_bytes is not None
    assert memory.arena_bytes >= memory.lower_bound_bytes
    assert found.constants_bytes == sum(tensor.nbytes for tensor in model.program.constants)
    assert "KERNEL linear" in found.bytecode
    json.dumps(found.to_dict(), allow_nan=False)
