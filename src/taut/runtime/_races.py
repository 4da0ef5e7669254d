"""Refuses tasks that may run at the same time and surely touch the same memory, where one of them writes it.

Sizes that depend on arguments are not known before a call: what cannot be decided is let through.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from taut.errors import GraphError
from taut.runtime._program import DTYPES, Function, Opcode, Program
from taut.runtime._shape_values import compute_sizes

_MOST_TASKS, _MOST_ROWS = 16_384, 200_000
_MOST_PAIRS, _ROWS_OF_A_PAIR = 3_000_000, 8
"""Pairs of a program that are compared, and how many rows of memory count as another one. What is left then is let
through, as is a region of more tasks: a program from elsewhere may not make loading take for ever."""
_LARGEST = 2**62
_COPIED = (Opcode.ITEM, Opcode.LOAD, Opcode.TAG, Opcode.LENGTH, Opcode.ELEMENT)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a tensor lies: its memory, and bytes from its start; dimensions are (size, bytes between elements)."""

    memory: object
    start: int
    dimensions: tuple[tuple[int, int], ...]
    dtype: int

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def end(self) -> int:
        return self.start + sum((size - 1) * step for size, step in self.dimensions) + self.itemsize

    @property
    def empty(self) -> bool:
        return any(size == 0 for size, _ in self.dimensions)

    @functools.cached_property
    def rows(self) -> tuple[NDArray[np.int64], int] | None:
        """The starts of its runs of bytes, ascending, and how long each is; None where they are too many or too far."""
        if not -_LARGEST < self.start <= self.end < _LARGEST:
            return None
        length = self.itemsize
        left = sorted((step, size) for size, step in self.dimensions if size > 1 and step > 0)
        while left and left[0][0] == length:
            length *= left.pop(0)[1]
        starts = np.array([self.start], np.int64)
        for step, size in left:
            if len(starts) * size > _MOST_ROWS:
                return None
            starts = np.add.outer(starts, step * np.arange(size)).ravel()
        return np.unique(starts), length


@dataclasses.dataclass(frozen=True)
class _Access:
    """A register that a task reads or writes, and where its tensor lies if that is known."""

    task: int
    instruction: int
    register: int
    place: _Place | None
    written: bool


class _Budget:
    """How many pairs may still be compared."""

    def __init__(self) -> None:
        self._left = _MOST_PAIRS

    def spend(self, pairs: int = 1) -> bool:
        """Count pairs; False where there were none left."""
        self._left -= pairs
        return self._left >= 0


def check_races(program: Program) -> None:
    """Check a program that is well-formed otherwise.

    Raises:
        GraphError: two tasks of a PARALLEL that nothing orders touch the same register or overlapping memory, and one
            of them writes it.
    """
    budget = _Budget()
    for function in program.functions:
        if any(instruction[0] == Opcode.PARALLEL for instruction in function.instructions):
            _Walk(program, function, budget).run()


class _Walk:
    """Goes through a function once, from top to bottom, with what is known of slots and registers."""

    def __init__(self, program: Program, function: Function, budget: _Budget) -> None:
        self._program = program
        self._function = function
        self._budget = budget
        self._slots: dict[int, int | None] = collections.defaultdict(int)
        self._registers: dict[int, _Place | None] = {}
        self._arena: object = None

    def run(self) -> None:
        code = self._function.instructions
        targets = {words[-1] for words in code if words[0] in (Opcode.JUMP, Opcode.BRANCH)}
        for number, words in enumerate(code):
            if number in targets:
                self._slots, self._registers = collections.defaultdict(lambda: None), {}
                self._arena = ("arena", number)
            if words[0] == Opcode.PARALLEL:
                self._check(number, words)
            else:
                self._step(number, words)

    def _step(self, number: int, words: Sequence[int]) -> None:
        opcode = Opcode(words[0])
        if opcode is Opcode.SHAPE:
            compute_sizes(self._function.shape_code[words[1] : words[2]], self._slots)
        elif opcode is Opcode.ARENA:
            self._arena = ("arena", number)
        elif opcode is Opcode.ALLOC:
            start = self._slots[words[3]]
            self._registers[words[1]] = self._dense(self._arena, start, words[2], words[5:])
        elif opcode is Opcode.NEW:
            self._registers[words[1]] = self._dense(("new", number), 0, words[2], words[4:])
        elif opcode is Opcode.VIEW:
            self._registers[words[1]] = self._view(self._registers.get(words[2]), words)
        elif opcode is Opcode.MOVE:
            self._registers[words[1]] = self._registers.get(words[2])
        elif opcode is Opcode.BIND:
            place = self._registers.get(words[2])
            known = place is not None and words[3] < len(place.dimensions)
            self._slots[words[1]] = place.dimensions[words[3]][0] if known and place is not None else None
        elif opcode is Opcode.LEVELS:
            self._registers[words[1]] = self._registers[words[2]] = self._slots[words[3]] = None
        elif opcode in _COPIED:
            self._slots[words[1]] = None
        elif opcode in (Opcode.CALL, Opcode.FALLBACK):
            for register in words[4 + words[2] :]:
                self._registers[register] = None
        elif opcode in (
            Opcode.CONSTANT,
            Opcode.STORE,
            Opcode.CLEAR,
            Opcode.MAKE,
            Opcode.FIELD,
            Opcode.APPEND,
            Opcode.TRANSFER,
        ):
            self._registers[words[1]] = None

    def _dense(self, memory: object, start: int | None, dtype: int, slots: Sequence[int]) -> _Place | None:
        sizes = [self._slots[slot] for slot in slots]
        if start is None or any(size is None or size < 0 for size in sizes):
            return None
        dimensions: list[tuple[int, int]] = []
        step = DTYPES[dtype].itemsize
        for size in reversed(sizes):
            assert size is not None
            dimensions.insert(0, (size, step))
            step *= size
        return _Place(memory, start, tuple(dimensions), dtype)

    def _view(self, base: _Place | None, words: Sequence[int]) -> _Place | None:
        rank = words[4]
        offset, *values = (self._slots[slot] for slot in (words[3], *words[5 : 5 + 2 * rank]))
        if base is None or offset is None or any(value is None or value < 0 for value in values):
            return None
        item = base.itemsize
        pairs = zip(values[:rank], values[rank:], strict=True)
        dimensions = tuple((size, step * item) for size, step in pairs if size is not None and step is not None)
        return _Place(base.memory, base.start + offset * item, dimensions, base.dtype)

    def _check(self, number: int, words: Sequence[int]) -> None:
        if words[1] > _MOST_TASKS:
            return
        accesses, before = self._region(number, words)
        by_register: dict[int, list[_Access]] = {}
        by_memory: dict[object, list[_Access]] = {}
        for access in accesses:
            if access.place is not None and access.place.empty:
                continue
            by_register.setdefault(access.register, []).append(access)
            if access.place is not None:
                by_memory.setdefault(access.place.memory, []).append(access)
        for own in by_register.values():
            written = [access for access in own if access.written]
            for a, b in self._affordable(itertools.product(written, own)):
                if _free(a, b, before):
                    self._refuse(a, b, f"register {a.register}")
        for own in by_memory.values():
            for a, b in self._affordable(_near(own)):
                if _free(a, b, before) and self._share(a, b):
                    self._refuse(a, b, "overlapping memory")

    def _affordable(self, pairs: Iterable[tuple[_Access, _Access]]) -> Iterator[tuple[_Access, _Access]]:
        """The pairs, as long as more may be compared."""
        return itertools.takewhile(lambda _: self._budget.spend(), pairs)

    def _share(self, a: _Access, b: _Access) -> bool:
        """Whether they surely have a byte in common."""
        assert a.place is not None
        assert b.place is not None
        one, two = a.place.rows, b.place.rows
        if one is None or two is None or not self._budget.spend((len(one[0]) + len(two[0])) // _ROWS_OF_A_PAIR):
            return False
        (first, length), (second, other) = one, two
        # The last run that starts at or before each start of the other.
        at = np.searchsorted(first, second, side="right") - 1
        if np.any((at >= 0) & (first[at] + length > second)):
            return True
        at = np.searchsorted(second, first, side="right") - 1
        return bool(np.any((at >= 0) & (second[at] + other > first)))

    def _region(self, number: int, words: Sequence[int]) -> tuple[list[_Access], list[int]]:
        """What the tasks touch, and for each task those that are done before it, as bits."""
        accesses, before = [], []
        rest = iter(words[2:])
        at = number + 1
        for task in range(words[1]):
            length, _, count = next(rest), next(rest), next(rest)
            done = 0
            for other in itertools.islice(rest, count):
                done |= before[other] | 1 << other
            before.append(done)
            for instruction in range(at, at + length):
                accesses += self._accesses(task, instruction)
            at += length
        return accesses, before

    def _accesses(self, task: int, number: int) -> Iterator[_Access]:
        words = self._function.instructions[number]
        if words[0] == Opcode.COPY:
            operands = [(words[1], True), (words[2], False)]
        else:
            declared = self._program.kernels[words[1]].operands
            operands = [(register, operand.written) for register, operand in zip(words[3:], declared, strict=True)]
        for register, written in operands:
            yield _Access(task, number, register, self._registers.get(register), written)

    def _refuse(self, a: _Access, b: _Access, what: str) -> None:
        numbers = (a.instruction, b.instruction)
        raise GraphError(
            f"function {self._function.name}: instructions {min(numbers)} and {max(numbers)} of tasks that may run at "
            f"the same time touch {what}, and one of them writes it",
            expected="an order between these tasks",
        )


def _free(a: _Access, b: _Access, before: Sequence[int]) -> bool:
    """Whether one writes, and nothing orders their tasks."""
    first, second = sorted((a.task, b.task))
    return first != second and (a.written or b.written) and not before[second] >> first & 1


def _near(accesses: Sequence[_Access]) -> Iterator[tuple[_Access, _Access]]:
    """Pairs whose memory from the first to the last byte overlaps."""
    known = [(access.place.start, access.place.end, access) for access in accesses if access.place is not None]
    known.sort(key=lambda one: one[:2])
    for position, (_, end, access) in enumerate(known):
        for start, _, other in itertools.islice(known, position + 1, None):
            if start >= end:
                break
            yield access, other
