"""The code of one function of a program under construction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from taut.runtime import DTYPES, Function, Instruction, Opcode, ShapeCode


class Code:
    """Instructions, registers and slots of one function.

    Args:
        name: of the function.
        parameters: how many arguments it takes; they are in the first registers.
        results: how many values it returns.
    """

    def __init__(self, name: str, parameters: int, results: int) -> None:
        self.name = name
        self.parameters = parameters
        self.results = results
        self.registers = parameters
        self.slots = 0
        # Constant numbers are set once, by the first instruction.
        self.instructions: list[Instruction] = [(Opcode.SHAPE, 0, 0)]
        self._words: list[int] = []
        self._numbers: dict[int, int] = {}

    def register(self) -> int:
        """A register of its own."""
        self.registers += 1
        return self.registers - 1

    def slot(self) -> int:
        """A slot of its own."""
        self.slots += 1
        return self.slots - 1

    def add(self, *words: int) -> int:
        """Append an instruction; returns its number."""
        self.instructions.append(tuple(int(word) for word in words))
        return len(self.instructions) - 1

    def number(self, value: int) -> int:
        """The slot of a constant number."""
        if value not in self._numbers:
            self._numbers[value] = self.slot()
        return self._numbers[value]

    def compute(self, operation: ShapeCode, *slots: int, into: int | None = None) -> int:
        """Apply an operation to slots; returns the slot of the result."""
        result = self.slot() if into is None else into
        start = len(self._words)
        for slot in slots:
            self._words += [ShapeCode.LOAD, slot]
        self._words += [operation, ShapeCode.STORE, result]
        self.add(Opcode.SHAPE, start, len(self._words))
        return result

    def assign(self, target: int, source: int) -> None:
        """Copy one slot to another."""
        start = len(self._words)
        self._words += [ShapeCode.LOAD, source, ShapeCode.STORE, target]
        self.add(Opcode.SHAPE, start, len(self._words))

    def branch(self, condition: int, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        """Code for both values of a slot."""
        test = self.add(Opcode.BRANCH, condition, -1)
        then()
        if otherwise is None:
            self.instructions[test] = (Opcode.BRANCH, condition, len(self.instructions))
            return
        jump = self.add(Opcode.JUMP, -1)
        self.instructions[test] = (Opcode.BRANCH, condition, len(self.instructions))
        otherwise()
        self.instructions[jump] = (Opcode.JUMP, len(self.instructions))

    def repeat(self, count: int, body: Callable[[int], None]) -> None:
        """Run `body(slot of the index)` for 0 to the number in slot `count`."""
        index = self.slot()
        self.assign(index, self.number(0))
        start = len(self.instructions)
        more = self.compute(ShapeCode.LT, index, count)
        test = self.add(Opcode.BRANCH, more, -1)
        body(index)
        self.compute(ShapeCode.ADD, index, self.number(1), into=index)
        self.add(Opcode.JUMP, start)
        self.instructions[test] = (Opcode.BRANCH, more, len(self.instructions))

    def call(self, function: int, arguments: Sequence[int], results: int) -> list[int]:
        """Call a function; returns the registers of the results."""
        found = [self.register() for _ in range(results)]
        self.add(Opcode.CALL, function, len(arguments), *arguments, len(found), *found)
        return found

    def field(self, register: int, slot: int) -> int:
        """The register of a field of an object."""
        found = self.register()
        self.add(Opcode.FIELD, found, register, slot)
        return found

    def tag(self, register: int) -> int:
        """The slot of the tag of an object."""
        found = self.slot()
        self.add(Opcode.TAG, found, register)
        return found

    def length(self, register: int) -> int:
        """The slot of the number of fields of an object."""
        found = self.slot()
        self.add(Opcode.LENGTH, found, register)
        return found

    def rows(self, count: int, kind: RowType, into: int | None = None) -> int:
        """A new tensor of rows; slot `count` says how many."""
        found = self.register() if into is None else into
        sizes = [count, *(self.number(size) for size in kind.shape)]
        self.add(Opcode.NEW, found, DTYPES.index(kind.dtype), len(sizes), *sizes)
        return found

    def view(self, tensor: int, offset: int, sizes: Sequence[int], strides: Sequence[int]) -> int:
        """The register of a view of a tensor; offset, sizes and strides are slots."""
        found = self.register()
        self.add(Opcode.VIEW, found, tensor, offset, len(sizes), *sizes, *strides)
        return found

    def row(self, tensor: int, index: int, kind: RowType) -> int:
        """The register of one row of a contiguous tensor."""
        offset = self.compute(ShapeCode.MUL, index, self.number(kind.elements))
        return self.view(tensor, offset, list(map(self.number, kind.shape)), list(map(self.number, kind.strides)))

    def some_rows(self, tensor: int, first: int, count: int, kind: RowType) -> int:
        """The register of consecutive rows of a contiguous tensor."""
        offset = self.compute(ShapeCode.MUL, first, self.number(kind.elements))
        sizes = [count, *map(self.number, kind.shape)]
        return self.view(tensor, offset, sizes, list(map(self.number, (kind.elements, *kind.strides))))

    def flat_rows(self, tensor: int, count: int, kind: RowType) -> int:
        """The register of a contiguous tensor's rows with one dimension each."""
        if len(kind.shape) == 1:
            return tensor
        width = self.number(kind.elements)
        return self.view(tensor, self.number(0), (count, width), (width, self.number(1)))

    def function(self) -> Function:
        """The function; the code must end with RETURN."""
        start = len(self._words)
        for value, slot in self._numbers.items():
            self._words += [ShapeCode.PUSH, value, ShapeCode.STORE, slot]
        self.instructions[0] = (Opcode.SHAPE, start, len(self._words))
        return Function(
            self.name,
            self.parameters,
            self.results,
            self.registers,
            self.slots,
            tuple(self.instructions),
            tuple(self._words),
            ("",) * len(self.instructions),
        )


class RowType:
    """One row of a batch: the shape and dtype of a value for one node.

    Args:
        shape: without the batch.
        dtype: of the elements.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape = shape
        self.dtype = dtype
        self.elements = math.prod(shape)
        self.strides = tuple(math.prod(max(size, 1) for size in shape[axis + 1 :]) for axis in range(len(shape)))
