"""The body of a function while it is written: values, numbers, calls and branches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from taut.compile._builder_code import Code, RowType
from taut.compile._builder_link import Linker
from taut.errors import ArgumentError
from taut.graph import Graph
from taut.runtime import Opcode, ShapeCode


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """A module that was captured once and is called from functions.

    Attributes:
        name: for people.
        graph: the module over a batch of any size.
        inputs: one row of each input.
        outputs: one row of each output.
    """

    name: str
    graph: Graph
    inputs: tuple[RowType, ...]
    outputs: tuple[RowType, ...]

    @property
    def parameters(self) -> int:
        """How many arguments it takes."""
        return len(self.inputs)

    @property
    def results(self) -> int:
        """How many values it returns."""
        return len(self.outputs)


@dataclasses.dataclass(frozen=True, eq=False)
class Procedure:
    """A function of the program; it may be called before its body is given, also by itself.

    Attributes:
        name: for people.
        parameters: how many arguments it takes: tensors, integers or objects.
        results: how many values it returns.
        body: writes its code: called with a `Body` and the arguments, it returns the results.
    """

    name: str
    parameters: int
    results: int
    body: Callable[..., Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A tensor, an integer or an object while a body is written."""

    register: int


class Number:
    """An integer while a body is written; it compares and adds like one."""

    def __init__(self, code: Code, slot: int) -> None:
        self.code = code
        self.slot = slot

    def _with(self, operation: ShapeCode, other: Number | int) -> Number:
        slot = other.slot if isinstance(other, Number) else self.code.number(other)
        return Number(self.code, self.code.compute(operation, self.slot, slot))

    def __add__(self, other: Number | int) -> Number:
        return self._with(ShapeCode.ADD, other)

    def __sub__(self, other: Number | int) -> Number:
        return self._with(ShapeCode.SUB, other)

    def __mul__(self, other: Number | int) -> Number:
        return self._with(ShapeCode.MUL, other)

    def __lt__(self, other: Number | int) -> Number:
        return self._with(ShapeCode.LT, other)

    def __le__(self, other: Number | int) -> Number:
        return self._with(ShapeCode.LE, other)

    def equals(self, other: Number | int) -> Number:
        """1 where both are equal, else 0."""
        return self._with(ShapeCode.EQ, other)

    def __bool__(self) -> bool:
        raise ArgumentError(
            "condition",
            "a number of the running program",
            expected="no Python `if` on it, as its value is not known yet",
            fix="write body.branch(condition, then, otherwise)",
        )


class Body:
    """Writes the code of a function; each method appends an operation.

    Args:
        code: where it goes.
        number_of: the number of a cell or procedure that is called.
        linker: holds the texts of checks and the kernels.
    """

    def __init__(self, code: Code, number_of: Callable[[Cell | Procedure], int], linker: Linker) -> None:
        self.code = code
        self.message = linker.message
        self.kernel = linker.kernel
        self._number_of = number_of

    def call(self, target: Cell | Procedure, *arguments: Value) -> tuple[Value, ...]:
        """Call a cell or a procedure; recursion is a call of the procedure itself.

        Raises:
            ArgumentError: the number of arguments differs from what the target takes.
        """
        if len(arguments) != target.parameters:
            raise ArgumentError(f"arguments of {target.name}", len(arguments), expected=f"{target.parameters} values")
        registers = [argument.register for argument in arguments]
        return tuple(map(Value, self.code.call(self._number_of(target), registers, target.results)))

    def branch(
        self,
        condition: Number,
        then: Callable[[], Sequence[Value]],
        otherwise: Callable[[], Sequence[Value]],
    ) -> tuple[Value, ...]:
        """The values of `then()` where the condition is not 0, else of `otherwise()`.

        Raises:
            ArgumentError: the two give different numbers of values.
        """
        merged: list[int] = []

        def first() -> None:
            for value in then():
                merged.append(self.code.register())
                self.code.add(Opcode.MOVE, merged[-1], value.register)

        def second() -> None:
            values = otherwise()
            if len(values) != len(merged):
                raise ArgumentError("otherwise", f"{len(values)} values", expected=f"{len(merged)}, as of the other")
            for target, value in zip(merged, values, strict=True):
                self.code.add(Opcode.MOVE, target, value.register)

        self.code.branch(condition.slot, first, second)
        return tuple(map(Value, merged))

    def object(self, tag: int, *fields: Value) -> Value:
        """An object with these fields."""
        register = self.code.register()
        self.code.add(Opcode.MAKE, register, tag, len(fields), *(field.register for field in fields))
        return Value(register)

    def append(self, value: Value, field: Value) -> Value:
        """The object with one more field."""
        register = self.code.register()
        self.code.add(Opcode.APPEND, register, value.register, field.register)
        return Value(register)

    def field(self, value: Value, position: Number | int) -> Value:
        """A field of an object."""
        slot = position.slot if isinstance(position, Number) else self.code.number(position)
        return Value(self.code.field(value.register, slot))

    def tag(self, value: Value) -> Number:
        """The tag of an object."""
        return Number(self.code, self.code.tag(value.register))

    def length(self, value: Value) -> Number:
        """How many fields an object has."""
        return Number(self.code, self.code.length(value.register))

    def size(self, tensor: Value, dimension: int) -> Number:
        """A size of a tensor."""
        slot = self.code.slot()
        self.code.add(Opcode.BIND, slot, tensor.register, dimension)
        return Number(self.code, slot)

    def item(self, tensor: Value) -> Number:
        """The value of an integer or bool tensor with one element."""
        slot = self.code.slot()
        self.code.add(Opcode.ITEM, slot, tensor.register)
        return Number(self.code, slot)

    def number(self, value: Value) -> Number:
        """The number in an integer value."""
        slot = self.code.slot()
        self.code.add(Opcode.LOAD, slot, value.register)
        return Number(self.code, slot)

    def value(self, number: Number) -> Value:
        """A number as a value, e.g. to pass it to a procedure."""
        register = self.code.register()
        self.code.add(Opcode.STORE, register, number.slot)
        return Value(register)
