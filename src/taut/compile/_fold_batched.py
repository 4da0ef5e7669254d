"""Folds by height: all nodes of one height and tag, whose children are computed by then, are one call of their cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from taut.compile._builder_body import Body, Procedure, Value
from taut.compile._builder_code import RowType
from taut.runtime import Kernel, Opcode, OperandType, ShapeCode

if TYPE_CHECKING:
    from taut.compile._fold import Case


def batched_fold(name: str, cases: Mapping[int, Case]) -> Procedure:
    """A procedure as `fold` describes it, which batches."""
    states = next(iter(cases.values())).cell.outputs

    def write(body: Body, tree: Value) -> Sequence[Value]:
        return _Steps(body, tuple(cases.values()), states).write(tree, tuple(cases))

    return Procedure(name, 1, len(states), write)


class _Steps:
    """The code of all steps: the machine lists the nodes, then each step gathers, calls a cell and keeps its states.

    The states of all nodes lie in one tensor for each state, in the order of the list, so that a step writes
    consecutive rows; the root comes last.
    """

    def __init__(self, body: Body, cases: Sequence[Case], states: tuple[RowType, ...]) -> None:
        self.body = body
        self.code = body.code
        self.cases = cases
        self.states = states
        self.lists = self.code.register()
        self.nodes = self.code.register()
        self.first, self.rows, self.start = (self.code.slot() for _ in range(3))
        self.count = -1
        self.kept: list[int] = []
        self.results = [self.code.register() for _ in states]

    def write(self, tree: Value, tags: Sequence[int]) -> list[Value]:
        """Write it all; the results are those of the last step."""
        code = self.code
        steps, kind = code.slot(), code.slot()
        listed = [(tag, len(case.children), *case.children) for tag, case in zip(tags, self.cases, strict=True)]
        words = [word for case in listed for word in case]
        code.add(Opcode.LEVELS, self.lists, self.nodes, steps, tree.register, len(listed), *words)
        self.count = code.length(self.nodes)
        self.kept = [code.rows(self.count, row) for row in self.states]

        def step(index: int) -> None:
            word = code.compute(ShapeCode.MUL, index, code.number(4))
            for slot in (kind, self.first, self.rows, self.start):
                code.add(Opcode.ELEMENT, slot, self.lists, word)
                if slot != self.start:
                    word = code.compute(ShapeCode.ADD, word, code.number(1))
            self._any_of(kind, 0)

        code.repeat(steps, step)
        return [Value(register) for register in self.results]

    def _any_of(self, kind: int, number: int) -> None:
        """The code for the case in slot `kind`, which is `number` or a later one."""
        if number == len(self.cases) - 1:
            self._call(self.cases[number])
            return
        is_this = self.code.compute(ShapeCode.EQ, kind, self.code.number(number))
        self.code.branch(is_this, lambda: self._call(self.cases[number]), lambda: self._any_of(kind, number + 1))

    def _call(self, case: Case) -> None:
        code = self.code
        arguments: list[int] = []
        list_start = self.start
        for position, field in enumerate(case.fields):
            if field == "child":
                children = code.view(self.lists, list_start, (self.rows,), (code.number(1),))
                arguments += [self._gathered(*kept, children) for kept in zip(self.kept, self.states, strict=True)]
                list_start = code.compute(ShapeCode.ADD, list_start, self.rows)
            else:
                arguments.append(code.rows(self.rows, case.cell.inputs[len(arguments)]))
                code.add(Opcode.STACK, arguments[-1], self.nodes, self.first, position)
        made = self.body.call(case.cell, *map(Value, arguments))
        for target, kept, value, row in zip(self.results, self.kept, made, self.states, strict=True):
            code.add(Opcode.MOVE, target, value.register)
            code.add(Opcode.COPY, code.some_rows(kept, self.first, self.rows, row), target)

    def _gathered(self, kept: int, row: RowType, children: int) -> int:
        """The kept states of children, as a new tensor."""
        code = self.code
        batch = code.rows(self.rows, row)
        matrix = OperandType(row.dtype, 2), OperandType(torch.int64, 1), OperandType(row.dtype, 2, written=True)
        operands = code.flat_rows(kept, self.count, row), children, code.flat_rows(batch, self.rows, row)
        code.add(Opcode.KERNEL, self.body.kernel(Kernel("embedding", matrix)), 3, *operands)
        return batch
