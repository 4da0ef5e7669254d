"""Saving and loading programs: lossless, and a typed error on everything else."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from assembly import F32, Op, Sh, flat, function, integer, loaded, nested, program, shape, tensor

from taut.codegen import Operand, Recipe
from taut.errors import ArtefactError, GraphError, TamperedError, TautError, TruncatedError, VersionError
from taut.graph import Builder, TensorType
from taut.runtime import (
    DTYPES,
    Kernel,
    OperandType,
    Program,
    disassemble,
    load,
    load_program,
    program_hash,
    save_program,
)
from taut.runtime import _storage as storage

EMBEDDING = (
    OperandType(torch.float32, 2),
    OperandType(torch.int64, 1),
    OperandType(torch.float32, 2, written=True),
)


def sample(*, kernel: Kernel | None = None) -> Program:
    """An embedding, doubled by a fallback, n times over."""
    builder = Builder()
    kind = TensorType((3, 4), torch.float32)
    graph = builder.finish((builder.add("aten.mul.Tensor", builder.input("x", kind), 2, outputs=kind),))
    double = function(flat(Op.FALLBACK, 0, [0], [1]), flat(Op.RETURN, [1]), takes=1, name="double")
    return program(
        [tensor("index", "n", dtype=torch.int64), integer("times"), nested("rest")],
        flat(Op.BIND, 0, 0, 0),
        shape(Sh.PUSH, 4, Sh.STORE, 1, Sh.LOAD, 0, Sh.PUSH, 16, Sh.MUL, Sh.STORE, 3),
        flat(Op.ARENA, 3),
        flat(Op.ALLOC, 4, F32, 2, [0, 1]),
        flat(Op.CONSTANT, 3, 0),
        flat(Op.KERNEL, 0, [3, 0, 4]),
        shape(Sh.LOAD, 0, Sh.PUSH, 3, Sh.EQ, Sh.STORE, 5),
        flat(Op.CHECK, 5, 0),
        flat(Op.LOAD, 6, 1),
        flat(Op.BRANCH, 6, 13),
        flat(Op.CALL, 1, [4], [4]),
        shape(Sh.LOAD, 6, Sh.PUSH, 1, Sh.SUB, Sh.STORE, 6),
        flat(Op.JUMP, 9),
        flat(Op.MAKE, 5, 7, [4, 2]),
        flat(Op.LEVELS, 6, 7, 7, 2, 1, 0, 0),
        flat(Op.ELEMENT, 8, 6, 9),
        flat(Op.NEW, 8, F32, [8, 1]),
        flat(Op.STACK, 8, 7, 8, 0),
        flat(Op.RETURN, [4, 5]),
        functions=[double],
        constants=(torch.arange(20.0).reshape(5, 4), torch.arange(20.0).reshape(5, 4), torch.arange(3.0)[1:]),
        kernels=(kernel or Kernel("embedding", EMBEDDING),),
        fallbacks=(graph,),
        messages=("index: n is {0}, 3 expected",),
        notes={"model": "sample"},
    )


def check(made: Program) -> None:
    index = torch.tensor([4, 0, 2])
    first, second = load(made).session()(index, 3, [1])
    assert torch.equal(first, torch.arange(20.0).reshape(5, 4)[index] * 8)
    assert second.fields[1].fields == [1]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "program.json", tmp_path / "constants.safetensors"
    save_program(sample(), *paths)
    return paths


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a program and state the right hash, as a hostile writer would."""
    document = json.loads(path.read_text())
    change(document["program"])
    document["hash"] = storage._digest(document["program"])
    path.write_text(json.dumps(document))


def test_a_program_survives(saved: tuple[Path, Path]) -> None:
    read = load_program(*saved)
    check(read)
    assert read.functions == sample().functions
    assert read.parameters == sample().parameters
    assert read.outputs == sample().outputs
    assert read.fallbacks == sample().fallbacks
    assert read.notes == sample().notes
    assert program_hash(read) == program_hash(sample())


def test_a_recipe_survives(tmp_path: Path) -> None:
    recipe = Recipe(
        "linear",
        (Operand("float32", (None, 4)), Operand("int64", (None,), dense=False), Operand("float32", (None, 4))),
        1,
        {"tile": 8, "scale": 0.1, "fast": True, "layout": "rows"},
        (("accumulator",), ("constant", -math.inf), ("constant", 3), ("where", 0, 1, 2), ("cast", "int8", 3)),
    )
    kernel = Kernel("linear", EMBEDDING, recipe)
    save_program(sample(kernel=kernel), tmp_path / "p.json", tmp_path / "p.safetensors")
    (read,) = load_program(tmp_path / "p.json", tmp_path / "p.safetensors").kernels
    assert read == kernel
    assert read.recipe is not None
    assert read.recipe.key == recipe.key


def test_the_listing_names_everything() -> None:
    text = disassemble(sample())
    for part in (
        "program(index: int64[n], times: int, rest: object)",
        "kernel 0 embedding(float32[?, ?], int64[?], out float32[?, ?]), prebuilt",
        "fallback 0 aten.mul.Tensor",
        "constant 2 float32[2]",
        "function 1 double: 12 registers, 16 slots",
        "SHAPE s1 = 4; s3 = (s0 * 16)",
        "ALLOC r4 float32 s2 (s0, s1)",
        "KERNEL embedding (r3, r0, r4)",
        "CHECK s5 'index: n is {0}, 3 expected'",
        "BRANCH s6 -> 13",
        "CALL double (r4) (r4)",
        "FALLBACK fallback 0 (r0) (r1)",
        "RETURN (r4, r5)",
    ):
        assert part in text


NO_OPERANDS = {"template": "map", "operands": [], "outputs": 0, "parameters": {}, "expression": []}
HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no functions": lambda d: d.update(functions=[]),
    "functions of text": lambda d: d.update(functions="many"),
    "a function that is a number": lambda d: d["functions"].insert(0, 7),
    "no instructions": lambda d: d["functions"][0].update(instructions=[]),
    "an empty instruction": lambda d: d["functions"][0]["instructions"].insert(0, []),
    "an unknown operation": lambda d: d["functions"][0]["instructions"].insert(0, [28]),
    "a negative operation": lambda d: d["functions"][0]["instructions"].insert(0, [-1]),
    "a boolean operation": lambda d: d["functions"][0]["instructions"].insert(0, [True]),
    "a huge word": lambda d: d["functions"][0]["instructions"].insert(0, [2**63]),
    "a fraction": lambda d: d["functions"][0]["instructions"].insert(0, [1.0]),
    "too many words": lambda d: d["functions"][0]["instructions"][0].append(0),
    "too few words": lambda d: d["functions"][0]["instructions"][0].pop(),
    "a jump outside": lambda d: d["functions"][0]["instructions"].insert(0, [13, 99]),
    "a jump backwards outside": lambda d: d["functions"][0]["instructions"].insert(0, [13, -1]),
    "no return": lambda d: d["functions"][0]["instructions"].append([18, 0]),
    "too few results": lambda d: d["functions"][0].update(results=1),
    "too many registers": lambda d: d["functions"][0].update(registers=2**40),
    "negative registers": lambda d: d["functions"][0].update(registers=-1),
    "too few registers": lambda d: d["functions"][0].update(registers=1),
    "too many slots": lambda d: d["functions"][0].update(slots=2**40),
    "no slots": lambda d: d["functions"][0].update(slots=0),
    "more parameters than registers": lambda d: d["functions"][1].update(parameters=13),
    "labels for some": lambda d: d["functions"][0].update(labels=["x"]),
    "a rank of 9": lambda d: d["functions"][0]["instructions"].insert(0, [3, 0, 0, 9] + [0] * 9),
    "a dtype of 10": lambda d: d["functions"][0]["instructions"].insert(0, [3, 0, 10, 0]),
    "a constant that does not exist": lambda d: d["functions"][0]["instructions"].insert(0, [4, 0, 3]),
    "a kernel that does not exist": lambda d: d["functions"][0]["instructions"].insert(0, [6, 1, 0]),
    "a kernel with few operands": lambda d: d["functions"][0]["instructions"].insert(0, [6, 0, 1, 0]),
    "a fallback that does not exist": lambda d: d["functions"][0]["instructions"].insert(0, [7, 1, 0, 0]),
    "a fallback with few inputs": lambda d: d["functions"][0]["instructions"].insert(0, [7, 0, 0, 0]),
    "a function that does not exist": lambda d: d["functions"][0]["instructions"].insert(0, [15, 2, 0, 0]),
    "a message that does not exist": lambda d: d["functions"][0]["instructions"].insert(0, [12, 0, 1]),
    "a negative list": lambda d: d["functions"][0]["instructions"].insert(0, [19, 0, 0, -1]),
    "a third device": lambda d: d["functions"][0]["instructions"].insert(0, [25, 0, 0, 2]),
    "a place for nothing": lambda d: d["functions"][0]["instructions"].insert(0, [26, 0, 1]),
    "a parameter of another kind": lambda d: d["parameters"].__setitem__(1, ["times", "float", None, []]),
    "a parameter of an unknown dtype": lambda d: d["parameters"].__setitem__(0, ["index", "tensor", "int65", ["n"]]),
    "a parameter without dtype": lambda d: d["parameters"].__setitem__(0, ["index", "tensor", None, []]),
    "a parameter with 9 dimensions": lambda d: d["parameters"].__setitem__(0, ["index", "tensor", "int8", ["n"] * 9]),
    "too few parameters": lambda d: d["parameters"].pop(),
    "an unknown prebuilt kernel": lambda d: d["kernels"][0].update(name="system"),
    "operands of another kernel": lambda d: d["kernels"][0].update(name="cast"),
    "an operand of text": lambda d: d["kernels"][0].update(operands=["float32"]),
    "an operand of rank 9": lambda d: d["kernels"][0]["operands"].__setitem__(0, ["float32", 9, False]),
    "a recipe for other operands": lambda d: d["kernels"][0].update(recipe=NO_OPERANDS),
    "a recipe of text": lambda d: d["kernels"][0].update(recipe="linear"),
    "a constant that is missing": lambda d: d["constants"].append("0" * 32),
    "constants of numbers": lambda d: d["constants"].append(3),
    "a fallback that writes": lambda d: d["fallbacks"][0]["nodes"][1].update(op="aten.mul_.Tensor"),
    "a fallback that reads a file": lambda d: d["fallbacks"][0]["nodes"][1].update(op="aten.from_file.default"),
    "an output of nothing": lambda d: d.update(outputs=["%", 2, 0]),
    "a second output of a result": lambda d: d.update(outputs=["tuple", ["%", 0, 1]]),
    "messages of numbers": lambda d: d.update(messages=[1]),
    "notes of numbers": lambda d: d.update(notes={"a": 1}),
    "notes as a list": lambda d: d.update(notes=[]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_program_is_refused(case: str, saved: tuple[Path, Path]) -> None:
    rewrite(saved[0], HOSTILE[case])
    with pytest.raises((ArtefactError, GraphError)):
        load_program(*saved)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "NaN", '"\\ud800"', "{}"], ids=range(7))
def test_text_that_is_no_program_is_refused(text: str, saved: tuple[Path, Path]) -> None:
    saved[0].write_text(text)
    with pytest.raises(ArtefactError):
        load_program(*saved)


def test_changes_are_noticed(saved: tuple[Path, Path]) -> None:
    document = json.loads(saved[0].read_text())
    document["program"]["functions"][0]["shape_code"][1] = 5
    saved[0].write_text(json.dumps(document))
    with pytest.raises(TamperedError, match="does not match the hash"):
        load_program(*saved)
    document["version"] = 2
    saved[0].write_text(json.dumps(document))
    with pytest.raises(VersionError, match="install a newer taut"):
        load_program(*saved)


def test_every_flipped_byte_is_noticed(saved: tuple[Path, Path]) -> None:
    for path in saved:
        content = path.read_bytes()
        for position in range(0, len(content), max(1, len(content) // 60)):
            path.write_bytes(content[:position] + bytes([content[position] ^ 0x15]) + content[position + 1 :])
            with pytest.raises(TautError):
                load_program(*saved)
        path.write_bytes(content)


def test_changed_constants_are_noticed(saved: tuple[Path, Path]) -> None:
    content = saved[1].read_bytes()
    saved[1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TamperedError, match="a constant does not match"):
        load_program(*saved)
    saved[1].unlink()
    with pytest.raises(TruncatedError, match="is missing"):
        load_program(*saved)


def mutate(document: dict[str, Any], source: random.Random) -> None:
    """Change one to three numbers of the code."""
    for _ in range(source.randint(1, 3)):
        made = source.choice(document["functions"])
        if source.random() < 0.2:
            made[source.choice(["registers", "slots", "results", "parameters"])] = source.randint(-1, 20)
            continue
        words = source.choice([made["shape_code"], *made["instructions"]])
        if not words:
            continue
        value = source.choice([source.randint(-2, 30), source.randint(-2, 8), 2**31, 2**62, -(2**63)])
        match source.randint(0, 5):
            case 0:
                words.insert(source.randrange(len(words) + 1), value)
            case 1:
                words.pop(source.randrange(len(words)))
            case 2:
                made["instructions"].insert(
                    source.randrange(len(made["instructions"])), list(source.choice(made["instructions"]))
                )
            case _:
                words[source.randrange(len(words))] = value


@pytest.mark.parametrize("seed", range(8))
def test_random_mutations_are_refused_or_run(seed: int, saved: tuple[Path, Path]) -> None:
    """Nothing but typed errors, whatever the words say."""
    source = random.Random(seed)
    original = json.loads(saved[0].read_text())["program"]
    constants = dict(zip(original["constants"], sample().constants, strict=True))
    index, tree = torch.tensor([4, 0, 2]), [torch.ones(2), 3, [1]]
    ran = 0
    for _ in range(150):
        document = json.loads(json.dumps(original))
        mutate(document, source)
        try:
            made = storage.decode_program(document, constants)
            call = loaded(made).session(step_limit=300, memory_limit=1 << 28, recursion_limit=50, poison=True)
            call(index, 2, tree)
            ran += 1
        except TautError:
            continue
    assert ran > 0


def test_dtypes_of_words_are_in_order() -> None:
    """Files hold positions of this table."""
    names = "float32 float64 bfloat16 float16 int64 int32 int16 int8 uint8 bool"
    assert [str(dtype).removeprefix("torch.") for dtype in DTYPES] == names.split()
