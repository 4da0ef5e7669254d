"""The pipeline of the template "map".

Row operations sum in as many accumulators as a vector has lanes, whole vectors first and then the tail of the row,
under a mask, so that nothing outside the row is touched.

Loops are not partitioned into a steady state and its ends: that makes nothing faster here, and Halide's search for
where to cut takes minutes for some expressions with bounds inside polynomials, such as gelu(x) - x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import halide as hl

from taut.codegen._buffers import constrain, extent, inputs
from taut.codegen._expression import ROW_OPERATIONS, aligned, convert, evaluate
from taut.codegen._math import is_nan
from taut.codegen._recipe import HEAVY, Expression, Operand, Recipe
from taut.errors import ArgumentError

_LANES = 16  # one vector of float32 where the host has AVX-512; Halide splits it elsewhere
_ROW_LANES = 32

_Value = Callable[[hl.Expr], hl.Expr]


def pipeline(recipe: Recipe) -> tuple[hl.Pipeline, list[hl.ImageParam]]:
    """See `taut.codegen._templates.pipeline`."""
    parameters = inputs(recipe)
    space = recipe.operands[-1]
    variables = [hl.Var(f"d{number}") for number in range(len(space.shape))]
    result = hl.Func("result")
    rows = _Rows(recipe, parameters, variables, result)
    column = hl.i32(0) if rows.reduced else variables[0]
    result[tuple(variables)] = convert(rows.value(len(recipe.expression) - 1, column), space.dtype)
    if not rows.reduced and space.shape[-1] != 1:
        result.vectorize(variables[0], _LANES, hl.TailStrategy.Predicate)
    result.never_partition_all()
    constrain(result.output_buffer(), space)
    rows.schedule()
    return hl.Pipeline(result), parameters


class _Rows:
    """The intermediate values of a row: results of row operations, and elements that are needed more than once."""

    def __init__(
        self, recipe: Recipe, parameters: list[hl.ImageParam], variables: list[hl.Var], result: hl.Func
    ) -> None:
        self._expression: Expression = recipe.expression
        self._operands: Sequence[Operand] = recipe.operands[:-1]
        self._parameters = parameters
        self._outer = variables[1:]
        self._result = result
        self._known: dict[int, _Value] = {}
        self._stages: list[Callable[[], None]] = []
        wide = [number for number, operand in enumerate(self._operands) if operand.shape[-1] != 1]
        self.reduced = recipe.operands[-1].shape[-1] == 1 and bool(wide)
        space = recipe.operands[-1]
        if wide or space.shape[-1] == 1:
            source = wide[0] if wide else 0
            self._static_width = self._operands[source].shape[-1] if self._operands else 1
            self._width = (
                extent(parameters[source], self._operands[source], len(self._operands[source].shape) - 1)
                if self._operands
                else hl.i32(1)
            )
        else:  # each operand is the same along the row: only the output tells how long it is
            self._static_width = space.shape[-1]
            if self._static_width is None and any(entry[0] in ROW_OPERATIONS for entry in self._expression):
                raise ArgumentError(
                    "inputs", self._operands, expected="one that is as long as the row, or a static row"
                )
            self._width = hl.i32(self._static_width or 1)
        kept = _kept(self._expression)
        for number, entry in enumerate(self._expression):
            if number in kept:
                self._keep(number)
            if entry[0] in ROW_OPERATIONS:
                self._reduce(number)

    def value(self, number: int, column: hl.Expr) -> hl.Expr:
        """Entry `number` at a column of the current row."""
        elements = [
            aligned(parameter, operand, (column, *self._outer))
            for parameter, operand in zip(self._parameters, self._operands, strict=True)
        ]
        known = {entry: value(column) for entry, value in self._known.items()}
        return evaluate(self._expression[: number + 1], elements, known=known)[number]

    def schedule(self) -> None:
        """Compute each stage once for each row."""
        for stage in self._stages:
            stage()

    def _at_row(self, stage: hl.Func, *, sized_by_row: bool = False) -> None:
        if not self._outer:
            stage.compute_root()
            return
        stage.compute_at(self._result, self._outer[0])
        if sized_by_row:
            stage.hoist_storage_root()

    def _keep(self, number: int) -> None:
        column = hl.Var("column")
        kept = hl.Func(f"kept{number}")
        kept[(column, *self._outer)] = self.value(number, column)
        kept.vectorize(column, _LANES, hl.TailStrategy.Predicate).never_partition_all()
        self._known[number] = lambda place: hl.Expr(kept[(place, *self._outer)])
        self._stages.append(lambda: self._at_row(kept, sized_by_row=True))

    def _is_uniform(self, number: int) -> bool:
        """Whether an entry is the same along the row."""
        entries = [self._expression[entry] for entry in _elements(self._expression, number)]
        return all(entry[0] != "operand" or self._operands[entry[1]].shape[-1] == 1 for entry in entries)

    def _reduce(self, number: int) -> None:
        name, argument = self._expression[number]
        if self._is_uniform(argument):
            one = self.value(argument, hl.i32(0))
            self._known[number] = lambda _: one * hl.cast(one.type(), self._width) if name == "row_sum" else one
            return
        lane = hl.Var("lane")
        exact = not any(entry[0] in ROW_OPERATIONS for entry in self._expression[number + 1 :])
        kind = self.value(argument, hl.i32(0)).type()
        step = _Step(name, kind, exact=exact)
        partial = hl.Func(f"partial{number}")
        partial[(lane, *self._outer)] = step.start
        lanes = _ROW_LANES
        whole = self._width // lanes * lanes
        stages = []
        if self._static_width is None or self._static_width >= lanes:
            r = hl.RDom([(0, self._width // lanes)], f"vectors{number}")
            at = (lane, *self._outer)
            element = step.encode(self.value(argument, r.x * lanes + lane))
            partial[at] = step.combine(hl.Expr(partial[at]), element)
            stages.append(lambda stage: stage.vectorize(lane, lanes))
        if self._static_width is None or self._static_width % lanes:
            tail = hl.RDom([(0, self._width % lanes)], f"tail{number}")
            at = (tail.x, *self._outer)
            partial[at] = step.combine(hl.Expr(partial[at]), step.encode(self.value(argument, whole + tail.x)))
            stages.append(
                lambda stage: stage.allow_race_conditions().vectorize(tail.x, _LANES, hl.TailStrategy.Predicate)
            )
        total = hl.Func(f"total{number}")
        every = hl.RDom([(0, lanes)], f"lanes{number}")
        at = tuple(self._outer) if self._outer else (hl.Var("unused"),)
        total[at] = step.start
        total[at] = step.combine(hl.Expr(total[at]), hl.Expr(partial[(every.x, *self._outer)]))
        self._known[number] = lambda _: step.decode(hl.Expr(total[at if self._outer else (0,)]))

        def schedule() -> None:
            partial.bound(lane, 0, lanes).vectorize(lane, lanes).store_in(hl.MemoryType.Stack)
            for position, arrange in enumerate(stages):
                arrange(partial.update(position)).never_partition_all()
            total.update().atomic().vectorize(every.x, lanes)
            self._at_row(partial)
            self._at_row(total)

        self._stages.append(schedule)


class _Step:
    """How a row operation starts, takes an element and ends.

    `exact` lets a maximum or minimum carry NaN: floats are compared as integers, NaN beyond all others. It is not
    needed where a later reduction meets the NaN anyway, as in softmax.
    """

    def __init__(self, name: str, kind: hl.Type, *, exact: bool) -> None:
        self._sum = name == "row_sum"
        self._largest = name == "row_max"
        self._ordered = exact and not self._sum and kind == hl.Float(32)
        if self._sum:
            self.start = hl.cast(kind, 0)
        elif self._ordered:
            self.start = hl.i32(-0x80000000 if self._largest else 0x7FFFFFFF)
        elif kind.is_float():
            self.start = hl.reinterpret(hl.Float(32), hl.i32(-0x800000 if self._largest else 0x7F800000))
        else:
            self.start = kind.min() if self._largest else kind.max()

    def encode(self, value: hl.Expr) -> hl.Expr:
        if not self._ordered:
            return value
        bits = hl.reinterpret(hl.Int(32), value)
        beyond = hl.i32(0x7FFFFFFF if self._largest else -0x80000000)
        return hl.select(is_nan(value), beyond, bits ^ ((bits >> 31) & 0x7FFFFFFF))

    def combine(self, a: hl.Expr, b: hl.Expr) -> hl.Expr:
        return a + b if self._sum else hl.max(a, b) if self._largest else hl.min(a, b)

    def decode(self, value: hl.Expr) -> hl.Expr:
        if not self._ordered:
            return value
        nan = hl.i32(0x7FFFFFFF if self._largest else -0x80000000)
        bits = hl.select(value == nan, hl.i32(0x7FC00000), value ^ ((value >> 31) & 0x7FFFFFFF))
        return hl.reinterpret(hl.Float(32), bits)


def _kept(expression: Expression) -> set[int]:
    """The arguments of row operations that are costly and needed again element by element."""
    arguments = {entry[1] for entry in expression if entry[0] in ROW_OPERATIONS}
    last = len(expression) - 1
    kept = set()
    for argument in arguments:
        heavy = any(expression[number][0] in HEAVY for number in _elements(expression, argument))
        again = any(argument in _elements(expression, user) for user in ({last} | arguments) - {argument})
        if heavy and again:
            kept.add(argument)
    return kept


def _elements(expression: Expression, number: int) -> set[int]:
    """The entries that an entry uses element by element, itself included."""
    found, waiting = set(), [number]
    while waiting:
        entry = waiting.pop()
        if entry in found:
            continue
        found.add(entry)
        name, *arguments = expression[entry]
        if name not in (*ROW_OPERATIONS, "operand", "constant", "accumulator"):
            waiting.extend(arguments[1:] if name == "cast" else arguments)
    return found
