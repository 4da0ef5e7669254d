"""Folds over trees: each node's state is a cell applied to its fields and to the states of its children."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from taut.compile._builder_body import Body, Cell, Procedure, Value
from taut.compile._builder_code import RowType
from taut.compile._by_tag import by_tag
from taut.compile._fold_batched import batched_fold
from taut.errors import ArgumentError
from taut.runtime import DTYPES, Opcode

TENSOR = "tensor"
CHILD = "child"


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """What a fold does at nodes with one tag.

    Attributes:
        cell: takes for each field a tensor, or all states of a child, and returns the node's states.
        fields: `TENSOR` (of the cell's row shape, without a batch) or `CHILD`, for each field of the node.
    """

    cell: Cell
    fields: tuple[str, ...]

    @property
    def children(self) -> tuple[int, ...]:
        """Positions of the fields that are children."""
        return tuple(position for position, kind in enumerate(self.fields) if kind == CHILD)


def fold(name: str, cases: Mapping[int, Case], *, batched: bool = True) -> Procedure:
    """A procedure that takes a tree and returns the states of its root, each with a batch of one row.

    As the recursion is pure, nodes of equal height do not depend on each other: batched, all nodes of one height
    and tag are one call of their cell, all leaves among them. The results are the same up to how a
    cell rounds for other batch sizes.

    Args:
        name: for people.
        cases: what to do for each tag.
        batched: whether to batch; without, each node is a call.

    Raises:
        ArgumentError: the cells' inputs and outputs do not fit the fields and each other.

    Source: Looks et al., "Deep Learning with Dynamic Computation Graphs" (ICLR 2017), section 2, for batching by depth.
    """
    _check(cases)
    if batched:
        return batched_fold(name, cases)
    states = next(iter(cases.values())).cell.outputs

    def body(body: Body, tree: Value) -> Sequence[Value]:
        code = body.code
        merged = [code.register() for _ in states]

        def node(case: Case) -> Callable[[], None]:
            def write() -> None:
                arguments: list[Value] = []
                for position, kind in enumerate(case.fields):
                    field = body.field(tree, position)
                    if kind == CHILD:
                        arguments += body.call(procedure, field)
                    else:
                        row = case.cell.inputs[len(arguments)]
                        batch = code.rows(code.number(1), row)
                        code.add(Opcode.COPY, code.row(batch, code.number(0), row), field.register)
                        arguments.append(Value(batch))
                for target, value in zip(merged, body.call(case.cell, *arguments), strict=True):
                    code.add(Opcode.MOVE, target, value.register)

            return write

        by_tag(body, code.tag(tree.register), {tag: node(case) for tag, case in cases.items()})
        return [Value(register) for register in merged]

    procedure = Procedure(name, 1, len(states), body)
    return procedure


def _check(cases: Mapping[int, Case]) -> None:
    if not any(not case.children for case in cases.values()):
        raise ArgumentError("cases", sorted(cases), expected="at least one case without children", fix="add the leaves")
    states = next(iter(cases.values())).cell.outputs
    for tag, case in cases.items():
        wanted: list[RowType] = []
        for kind in case.fields:
            if kind not in (TENSOR, CHILD):
                raise ArgumentError(f"fields of tag {tag}", kind, expected=f"{TENSOR!r} or {CHILD!r}")
            own = case.cell.inputs[len(wanted) : len(wanted) + 1]
            wanted += states if kind == CHILD else own
        for what, found, expected in (("inputs", case.cell.inputs, wanted), ("outputs", case.cell.outputs, states)):
            if [_key(row) for row in found] != [_key(row) for row in expected]:
                raise ArgumentError(
                    f"{what} of the cell of tag {tag}",
                    ", ".join(_shown(row) for row in found),
                    expected=", ".join(_shown(row) for row in expected) + " a row",
                    fix="give all cells the same states, in the order of the fields",
                )


def _key(row: RowType) -> tuple[object, ...]:
    return row.shape, DTYPES.index(row.dtype)


def _shown(row: RowType) -> str:
    return f"{str(row.dtype).removeprefix('torch.')} {row.shape}"
