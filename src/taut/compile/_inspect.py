"""What a program consists of and what each part of it costs: predicted by the roofline, and measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from taut.codegen import Recipe
from taut.compile._callable import CallableProgram, fallback_operators
from taut.compile._save import failed_kernels
from taut.compile._trace import Seen, Work, trace
from taut.cost import Peaks, thread_count
from taut.runtime import Opcode, Parameter, Program, disassemble

_REPEATS = 7


@dataclasses.dataclass(frozen=True)
class Step:
    """An instruction that computes.

    Attributes:
        function: the name of its function.
        instruction: its number there.
        kind: "generated", "prebuilt", "aten" or "copy".
        name: the template, the prebuilt kernel or ATen's operators.
        operations: what a generated kernel does to each element, in order.
        label: where it comes from in the model.
        shapes: of the operands, inputs first; None where they depend on data.
        flops: arithmetic operations of one call, a multiply-add counting as two.
        bytes: read and written by one call.
        predicted_seconds: the least that one call takes, by the roofline; None where that is not known.
        calls: how often it ran.
        measured_seconds: of all calls together.
    """

    function: str
    instruction: int
    kind: str
    name: str
    operations: tuple[str, ...]
    label: str
    shapes: tuple[tuple[int, ...] | None, ...]
    flops: int | None
    bytes: int | None
    predicted_seconds: float | None
    calls: int
    measured_seconds: float


@dataclasses.dataclass(frozen=True)
class Memory:
    """The memory plan of a function at the inspected sizes.

    Attributes:
        function: its name.
        arena_bytes: what one activation reserves; None where that depends on data.
        tensors: how many tensors lie there.
        regions: places that they share.
        lower_bound_bytes: the most that is in use at one instruction.
        storage_bytes: tensors with memory of their own: results, and what depends on data as far as it is known.
    """

    function: str
    arena_bytes: int | None
    tensors: int
    regions: int
    lower_bound_bytes: int | None
    storage_bytes: int


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A program taken apart.

    Attributes:
        inputs: the shape of each input, or its value, by name.
        steps: the instructions that compute, in the order of the code.
        memory: of each function that ran or was reached.
        constants_bytes: weights and the like.
        seconds: of one call, measured without Python.
        overhead_seconds: of that, by the profile, what no step accounts for: sizes, checks, memory.
        fallbacks: how often each operator of ATen occurs.
        failed: kernels that could not be generated where the program was compiled, and why.
        bytecode: the listing.
    """

    inputs: dict[str, tuple[int, ...] | int]
    steps: tuple[Step, ...]
    memory: tuple[Memory, ...]
    constants_bytes: int
    seconds: float
    overhead_seconds: float
    fallbacks: dict[str, int]
    failed: dict[str, str]
    bytecode: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**dataclasses.asdict(self), "bytecode": self.bytecode.splitlines()}


def inspect_program(model: CallableProgram, inputs: Sequence[Any], peaks: Peaks) -> Inspection:
    """Take a program apart: run it on inputs, time every instruction on one thread, and predict the same.

    Args:
        model: what `taut.compile` made or `taut.compile.load` read.
        inputs: one tensor or integer for each parameter of the program.
        peaks: the limits of the host on one thread.

    Raises:
        GuardError: if the inputs do not fit.
    """
    program = model.program
    shapes = [tuple(item.shape) if isinstance(item, torch.Tensor) else int(item) for item in inputs]
    with thread_count(1), torch.inference_mode():
        seconds = model.session.time(inputs, 3)
        repeats = max(1, min(1000, int(0.05 / max(seconds, 1e-7))))
        seconds = min(model.session.time(inputs, repeats) for _ in range(_REPEATS))
        times = _profile(model, inputs)
    traced = trace(program, shapes)
    resident = sum(tensor.nbytes for tensor in program.constants)
    steps, spent = [], 0.0
    for found in traced.values():
        for work in found.work:
            calls, measured = times.get((work.function, work.instruction), (0, 0.0))
            spent += measured
            steps.append(_step(program, work, peaks, resident, calls, measured))
    memory = tuple(
        Memory(item.name, item.arena, len(item.allocations), item.regions, item.lower_bound, item.storage)
        for item in traced.values()
    )
    return Inspection(
        inputs=dict(zip((parameter.name for parameter in program.parameters), shapes, strict=True)),
        steps=tuple(steps),
        memory=memory,
        constants_bytes=resident,
        seconds=seconds,
        overhead_seconds=max(0.0, sum(measured for _, measured in times.values()) - spent),
        fallbacks=fallback_operators(program),
        failed=failed_kernels(program),
        bytecode=disassemble(program),
    )


def seconds_by_label(model: CallableProgram, inputs: Sequence[Any]) -> dict[tuple[str, str], float]:
    """Seconds of one call by module and kernel; all else that the machine does is ("", "machine").

    Args:
        model: a program.
        inputs: positional arguments of the model.
    """
    functions = model.program.functions
    found: dict[tuple[str, str], float] = {}
    for (function, instruction), (_, seconds) in _profile(model, model.bind(*inputs)).items():
        code = functions[function]
        opcode, number = (*code.instructions[instruction][:2], 0)[:2]
        key = ("", "machine")
        if opcode in (Opcode.KERNEL, Opcode.FALLBACK, Opcode.COPY):
            label = code.labels[instruction] if code.labels else ""
            _, name, _ = _kind(model.program, Opcode(opcode), number)
            key = (label, name)
        found[key] = found.get(key, 0.0) + seconds
    return found


def random_inputs(
    parameters: Sequence[Parameter], shapes: Sequence[tuple[int, ...]], largest: Sequence[int]
) -> list[torch.Tensor | int]:
    """Random inputs; integers from 0 to the largest that each input may have, so that indices remain valid.

    Args:
        parameters: of the program.
        shapes: of the tensors.
        largest: integers; of an integer parameter its value.
    """
    generator = torch.Generator().manual_seed(0)
    made: list[torch.Tensor | int] = []
    for parameter, shape, most in zip(parameters, shapes, largest, strict=True):
        if parameter.dtype is None:
            made.append(most)
        elif parameter.dtype.is_floating_point:
            made.append(torch.randn(shape, generator=generator).to(parameter.dtype))
        else:
            made.append(torch.randint(0, max(most, 0) + 1, shape, generator=generator).to(parameter.dtype))
    return made


def _profile(model: CallableProgram, inputs: Sequence[Any]) -> dict[tuple[int, int], tuple[int, float]]:
    """Calls of each instruction, and the median over some runs of the seconds that all its calls take.

    What hands steps to workers is left out: it lasts as long as these.
    """
    functions = model.program.functions
    runs = [model.session.profile(*inputs) for _ in range(_REPEATS + 1)][1:]
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for run in runs:
        for entry in run:
            if functions[entry.function].instructions[entry.instruction][0] != Opcode.PARALLEL:
                found.setdefault((entry.function, entry.instruction), []).append((entry.nanoseconds, entry.calls))
    middles = {key: sorted(entries)[len(entries) // 2] for key, entries in found.items()}
    return {key: (calls, nanoseconds / 1e9) for key, (nanoseconds, calls) in middles.items()}


def _step(program: Program, work: Work, peaks: Peaks, resident: int, calls: int, measured: float) -> Step:
    kind, name, recipe = _kind(program, work.opcode, work.number)
    operations = tuple(entry[0] for entry in recipe.expression if entry[0] not in _LEAVES) if recipe else ()
    count = _operations(recipe, work.operands)
    read = work.operands
    if name == "embedding":  # a lookup reads the rows that it writes, not the whole table
        read = (read[-1], *read[1:])
    moved = _total(read)
    weights = _total([item for item in read if item is not None and item.origin == "constant"])
    predicted = None
    if kind != "aten" and count is not None and moved is not None and weights is not None:
        # Weights come from the level that holds all of them: the rest of the program has passed through since.
        memory = weights / peaks.bytes_per_second(max(moved, resident))
        memory += (moved - weights) / peaks.bytes_per_second(moved)
        predicted = max(count / peaks.flops["fp32"], memory)
    return Step(
        function=program.functions[work.function].name,
        instruction=work.instruction,
        kind=kind,
        name=name,
        operations=operations,
        label=work.label,
        shapes=tuple(None if item is None else item.sizes for item in work.operands),
        flops=count,
        bytes=moved,
        predicted_seconds=predicted,
        calls=calls,
        measured_seconds=measured,
    )


def _kind(program: Program, opcode: Opcode, number: int) -> tuple[str, str, Recipe | None]:
    if opcode is Opcode.COPY:
        return "copy", "copy", None
    if opcode is Opcode.FALLBACK:
        nodes = program.fallbacks[number].nodes
        return "aten", ", ".join(node.op for node in nodes if node.op not in ("input", "constant")), None
    kernel = program.kernels[number]
    return ("prebuilt" if kernel.recipe is None else "generated"), kernel.name, kernel.recipe


_LEAVES = ("accumulator", "operand", "constant")
_FREE = (*_LEAVES, "cast")


def _operations(recipe: Recipe | None, operands: Sequence[Seen | None]) -> int | None:
    """Arithmetic of one call; None where sizes are unknown."""
    if recipe is None:
        return 0
    sizes = [item.sizes if item is not None else None for item in operands]
    output = sizes[-1]
    if output is None:
        return None
    after = sum(entry[0] not in _FREE for entry in recipe.expression)
    if recipe.template == "map":
        shapes = [shape for shape in sizes if shape is not None]
        return after * max(math.prod(shape) for shape in shapes) if len(shapes) == len(sizes) else None
    each = _multiply_adds(recipe, sizes)
    return None if each is None else math.prod(output) * (2 * each + after)


def _multiply_adds(recipe: Recipe, sizes: Sequence[tuple[int, ...] | None]) -> int | None:
    """Of one element of the output."""
    first, second = sizes[0], sizes[1]
    taps = math.prod(int(recipe.parameters.get(f"kernel{axis}", 1)) for axis in range(2))
    match recipe.template:
        case "linear" | "matmul":
            return None if first is None else first[-1]
        case "convolution":
            return None if second is None else taps * second[-2]
        case "attention":  # scores and their product with the values, of one element each
            return None if first is None or second is None else 2 * second[-2]
    return taps


def _total(operands: Sequence[Seen | None]) -> int | None:
    """Bytes of all; None where one is unknown."""
    sizes = [item.bytes if item is not None else None for item in operands]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
