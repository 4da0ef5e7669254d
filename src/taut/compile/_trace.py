"""What a program does at given sizes, found without running it: shapes of operands, memory in use.

Each function is walked once, in the order of its code, with the shapes of the first call that reaches it. Sizes that
depend on data are unknown, and so is all that follows from them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from taut.errors import TautError
from taut.graph import Graph, Interpreter
from taut.runtime import DTYPES, Instruction, Opcode, Program, compute_sizes

_ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class Seen:
    """A tensor as an instruction sees it.

    Attributes:
        sizes: of the tensor; None where one of them is unknown.
        dtype: of its elements.
        moving: elements of memory that it covers; dimensions without a stride count once.
        origin: "input", "constant", "arena", or "storage" for memory of its own.
        allocation: number of the allocation in the arena that it lies in.
    """

    sizes: tuple[int, ...] | None
    dtype: torch.dtype | None
    moving: int | None
    origin: str
    allocation: int | None = None

    @property
    def bytes(self) -> int | None:
        """Bytes that reading all of it moves."""
        return None if self.moving is None or self.dtype is None else self.moving * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Work:
    """An instruction that computes: a kernel, a fallback on ATen or a copy.

    Attributes:
        function: number of the function.
        instruction: number of the instruction in it.
        opcode: KERNEL, FALLBACK or COPY.
        number: of the kernel or the fallback.
        operands: inputs, then outputs.
        label: where it comes from in the model.
    """

    function: int
    instruction: int
    opcode: Opcode
    number: int
    operands: tuple[Seen | None, ...]
    label: str


@dataclasses.dataclass
class Allocation:
    """A tensor in the arena: where it lies, and the instructions between which it is in use."""

    offset: int | None
    bytes: int | None
    first: int
    last: int


@dataclasses.dataclass
class FunctionTrace:
    """What one function does.

    Attributes:
        name: of the function.
        work: its instructions that compute.
        arena: bytes that it reserves; None where they depend on data.
        allocations: what it puts there.
        storage: bytes of tensors with memory of their own, as far as they are known.
    """

    name: str
    work: list[Work] = dataclasses.field(default_factory=list)
    arena: int | None = 0
    allocations: list[Allocation] = dataclasses.field(default_factory=list)
    storage: int = 0

    @property
    def regions(self) -> int:
        """Places in the arena that allocations share."""
        return len({allocation.offset for allocation in self.allocations})

    @property
    def lower_bound(self) -> int | None:
        """The most bytes that are in use at one instruction: no arena without moves can be smaller."""
        if any(allocation.bytes is None for allocation in self.allocations):
            return None
        changes: dict[int, int] = {}
        for allocation in self.allocations:
            size = -(-(allocation.bytes or 0) // _ALIGNMENT) * _ALIGNMENT
            changes[allocation.first] = changes.get(allocation.first, 0) + size
            changes[allocation.last + 1] = changes.get(allocation.last + 1, 0) - size
        used = most = 0
        for position in sorted(changes):
            used += changes[position]
            most = max(most, used)
        return most


def trace(program: Program, inputs: Sequence[tuple[int, ...] | int]) -> dict[int, FunctionTrace]:
    """Walk a verified program.

    Args:
        program: the program.
        inputs: for each parameter the shape of a tensor, or the value of an integer.

    Returns:
        Each function that is reached, by number.
    """
    found: dict[int, FunctionTrace] = {}
    values = [
        given if isinstance(given, int) else _contiguous(given, parameter.dtype, "input")
        for given, parameter in zip(inputs, program.parameters, strict=True)
    ]
    _Walk(program, found).function(0, values)
    return found


class _Walk:
    def __init__(self, program: Program, found: dict[int, FunctionTrace]) -> None:
        self.program = program
        self.found = found

    def function(self, number: int, arguments: Sequence[Seen | int | None]) -> list[Seen | int | None]:
        """The results of a call; unknown where the function has been walked before."""
        function = self.program.functions[number]
        if number in self.found:
            return [None] * function.results
        self.found[number] = FunctionTrace(function.name)
        activation = _Activation(self, number, arguments)
        for position, instruction in enumerate(function.instructions):
            activation.step(position, instruction)
        return activation.results


class _Activation:
    """Registers and heap of one call, with None for what is unknown."""

    def __init__(self, walk: _Walk, number: int, arguments: Sequence[Seen | int | None]) -> None:
        self.walk = walk
        self.number = number
        self.code = walk.program.functions[number]
        self.trace = walk.found[number]
        self.registers: list[Seen | int | None] = [None] * self.code.registers
        self.registers[: len(arguments)] = arguments
        self.heap: list[int | None] = [0] * self.code.slots
        self.results: list[Seen | int | None] = [None] * self.code.results

    def step(self, position: int, instruction: Instruction) -> None:
        """One instruction."""
        opcode, words = Opcode(instruction[0]), iter(instruction[1:])
        program = self.walk.program
        match opcode:
            case Opcode.SHAPE:
                compute_sizes(self.code.shape_code[next(words) : next(words)], self.heap)
            case Opcode.ARENA:
                self.trace.arena = self.heap[next(words)]
            case Opcode.ALLOC:
                target, dtype, offset = next(words), DTYPES[next(words)], self.heap[next(words)]
                seen = self._made(words, dtype, "arena")
                self.trace.allocations.append(Allocation(offset, seen.bytes, position, position))
                allocation = len(self.trace.allocations) - 1
                self.registers[target] = dataclasses.replace(seen, allocation=allocation)
            case Opcode.NEW:
                target, dtype = next(words), DTYPES[next(words)]
                seen = self._made(words, dtype, "storage")
                self.trace.storage += seen.bytes or 0
                self.registers[target] = seen
            case Opcode.CONSTANT:
                target, tensor = next(words), program.constants[next(words)]
                self.registers[target] = _contiguous(tuple(tensor.shape), tensor.dtype, "constant")
            case Opcode.VIEW:
                target, base = next(words), self._tensor(next(words))
                next(words)
                rank = next(words)
                sizes, strides = ([self.heap[next(words)] for _ in range(rank)] for _ in range(2))
                self.registers[target] = _viewed(base, sizes, strides)
            case Opcode.KERNEL:
                kernel = next(words)
                self._work(position, opcode, kernel, list(self._list(words)))
            case Opcode.FALLBACK:
                fallback = next(words)
                given = list(self._list(words))
                taken = list(self._list(words))
                made = _outputs(program.fallbacks[fallback], [self.registers[register] for register in given])
                for register, seen in zip(taken, made, strict=True):
                    self.registers[register] = seen
                self._work(position, opcode, fallback, [*given, *taken])
            case Opcode.COPY:
                target, source = next(words), next(words)
                self._work(position, opcode, 0, [source, target])
            case Opcode.BIND:
                slot, tensor, axis = next(words), self._tensor(next(words)), next(words)
                sizes = () if tensor is None or tensor.sizes is None else tensor.sizes
                self.heap[slot] = sizes[axis] if axis < len(sizes) else None
            case Opcode.LOAD:
                slot, value = next(words), self.registers[next(words)]
                self.heap[slot] = value if isinstance(value, int) else None
            case Opcode.STORE:
                register = next(words)
                self.registers[register] = self.heap[next(words)]
            case Opcode.ITEM | Opcode.TAG | Opcode.LENGTH | Opcode.ELEMENT:
                self.heap[next(words)] = None
            case Opcode.LEVELS:
                self.registers[next(words)] = self.registers[next(words)] = self.heap[next(words)] = None
            case Opcode.CALL:
                function = next(words)
                given = [self._touch(register, position) for register in self._list(words)]
                for register, made in zip(self._list(words), self.walk.function(function, given), strict=True):
                    self.registers[register] = made
            case Opcode.RETURN:
                self.results = [self._touch(register, position) for register in self._list(words)]
            case Opcode.MOVE:
                target, source = next(words), next(words)
                self.registers[target] = self.registers[source]
            case Opcode.TRANSFER:
                target, source = next(words), self._tensor(next(words))
                self.registers[target] = source and dataclasses.replace(source, origin="storage", allocation=None)
            case Opcode.CLEAR | Opcode.MAKE | Opcode.FIELD | Opcode.APPEND:
                self.registers[next(words)] = None
            case Opcode.FILL:
                self._touch(next(words), position)

    def _work(self, position: int, opcode: Opcode, number: int, registers: list[int]) -> None:
        operands = [self._touch(register, position) for register in registers]
        tensors = tuple(item if isinstance(item, Seen) else None for item in operands)
        label = self.code.labels[position] if self.code.labels else ""
        self.trace.work.append(Work(self.number, position, opcode, number, tensors, label))

    def _touch(self, register: int, position: int) -> Seen | int | None:
        """What a register holds, which is in use here."""
        value = self.registers[register]
        if isinstance(value, Seen) and value.allocation is not None:
            self.trace.allocations[value.allocation].last = position
        return value

    def _tensor(self, register: int) -> Seen | None:
        value = self.registers[register]
        return value if isinstance(value, Seen) else None

    def _list(self, words: Iterator[int]) -> Iterator[int]:
        for _ in range(next(words)):
            yield next(words)

    def _made(self, words: Iterator[int], dtype: torch.dtype, origin: str) -> Seen:
        sizes = [self.heap[slot] for slot in self._list(words)]
        return _contiguous(_known(sizes), dtype, origin)


def _known(sizes: Sequence[int | None]) -> tuple[int, ...] | None:
    known = tuple(size for size in sizes if size is not None)
    return known if len(known) == len(sizes) else None


def _contiguous(sizes: tuple[int, ...] | None, dtype: torch.dtype | None, origin: str) -> Seen:
    return Seen(sizes, dtype, None if sizes is None else math.prod(sizes), origin)


def _viewed(base: Seen | None, sizes: Sequence[int | None], strides: Sequence[int | None]) -> Seen | None:
    if base is None:
        return None
    moving = _known([size for size, stride in zip(sizes, strides, strict=True) if stride != 0])
    covered = None if moving is None else math.prod(moving)
    return dataclasses.replace(base, sizes=_known(sizes), moving=covered)


def _outputs(graph: Graph, given: Sequence[Seen | int | None]) -> list[Seen | int | None]:
    """What a fallback returns: ATen's own rules tell, on tensors without content, unless sizes depend on data."""
    inputs: list[Any] = []
    for value in given:
        if isinstance(value, Seen) and value.sizes is not None:
            inputs.append(torch.empty(value.sizes, dtype=value.dtype, device="meta"))
        elif isinstance(value, int):
            inputs.append(value)
        else:
            return [None] * len(graph.output_refs)
    try:
        made = Interpreter(dataclasses.replace(graph, outputs=graph.output_refs))(*inputs)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, TautError):
        return [None] * len(graph.output_refs)
    return [
        _contiguous(tuple(value.shape), value.dtype, "storage") if isinstance(value, torch.Tensor) else None
        for value in made
    ]
