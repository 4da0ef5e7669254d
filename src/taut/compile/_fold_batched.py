"""Folds by depth: on the way down the nodes of each depth are listed, on the way up each list is one call of a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from taut.compile._builder_body import Body, Procedure, Value
from taut.compile._builder_code import RowType
from taut.compile._by_tag import by_tag
from taut.runtime import Opcode, ShapeCode

if TYPE_CHECKING:
    from taut.compile._fold import Case


def batched_fold(name: str, cases: Mapping[int, Case]) -> Procedure:
    """A procedure as `fold` describes it, which batches."""
    leaves = {tag: case for tag, case in cases.items() if not case.children}
    inner = {tag: case for tag, case in cases.items() if case.children}
    states = next(iter(cases.values())).cell.outputs
    groups = [*inner, *leaves]

    def write_level(body: Body, nodes: Value, *lists: Value) -> Sequence[Value]:
        return _Level(body, inner, leaves, states, level).write(nodes, lists)

    def write_root(body: Body, tree: Value) -> Sequence[Value]:
        code = body.code
        found = body.call(level, body.object(0, tree), *(body.object(0) for _ in leaves))
        merged = [code.register() for _ in states]

        def take(group: int) -> None:
            for position, target in enumerate(merged):
                code.add(Opcode.MOVE, target, found[group * len(states) + position].register)

        handlers = {tag: (lambda group=group: take(group)) for group, tag in enumerate(groups)}
        by_tag(body, code.tag(tree.register), handlers)
        return [Value(register) for register in merged]

    level = Procedure(f"{name} level", 1 + len(leaves), len(groups) * len(states), write_level)
    return Procedure(name, 1, len(states), write_root)


class _Level:
    """The code for all nodes of one depth.

    Its arguments are the list of these nodes, and for each tag of leaves the list of those above. It returns the states
    of the inner nodes of this depth, for each tag, and those of all leaves of the tree, for each tag.
    """

    def __init__(
        self,
        body: Body,
        inner: Mapping[int, Case],
        leaves: Mapping[int, Case],
        states: tuple[RowType, ...],
        level: Procedure,
    ) -> None:
        self.body = body
        self.code = body.code
        self.inner = inner
        self.leaves = leaves
        self.states = states
        self.level = level
        self.nodes = -1
        self.lists: dict[int, int] = {}
        self.counts = {tag: self._zero() for tag in inner}

    def write(self, nodes: Value, lists: Sequence[Value]) -> list[Value]:
        """Write it all."""
        code = self.code
        self.nodes = nodes.register
        for tag, given in zip(self.leaves, lists, strict=True):
            self.lists[tag] = code.register()
            code.add(Opcode.MOVE, self.lists[tag], given.register)
            code.add(Opcode.CLEAR, given.register)  # a list with one holder grows in place
        count = code.length(self.nodes)
        children = self.body.object(0).register
        code.repeat(count, lambda index: self._sort(index, children))
        # The leaves of the next depth are appended to those found so far.
        cursors = {tag: code.length(self.lists[tag]) for tag in self.leaves}
        sources = {tag: [code.register() for _ in self.states] for tag in (*self.inner, *self.leaves)}
        code.branch(code.length(children), lambda: self._descend(children, sources), lambda: self._bottom(sources))
        results = self._inner_states(count, cursors, sources)
        everything = [*results, *(register for tag in self.leaves for register in sources[tag])]
        return [Value(register) for register in everything]

    def _sort(self, index: int, children: int) -> None:
        """Put a leaf on its list, and the children of an inner node on theirs."""
        code = self.code
        node = code.field(self.nodes, index)

        def leaf(tag: int) -> None:
            code.add(Opcode.APPEND, self.lists[tag], self.lists[tag], node)

        def parent(tag: int) -> None:
            for position in self.inner[tag].children:
                code.add(Opcode.APPEND, children, children, code.field(node, code.number(position)))
            self._advance(self.counts[tag])

        handlers = {tag: (lambda tag=tag: parent(tag)) for tag in self.inner}
        handlers |= {tag: (lambda tag=tag: leaf(tag)) for tag in self.leaves}
        by_tag(self.body, code.tag(node), handlers)

    def _descend(self, children: int, sources: Mapping[int, list[int]]) -> None:
        """The states of the next depth, and of the leaves."""
        found = self.body.call(self.level, Value(children), *(Value(self.lists[tag]) for tag in self.leaves))
        targets = [register for registers in sources.values() for register in registers]
        for target, value in zip(targets, found, strict=True):
            self.code.add(Opcode.MOVE, target, value.register)

    def _bottom(self, sources: Mapping[int, list[int]]) -> None:
        """No node is deeper: all leaves are known."""
        for tag in self.inner:
            self._no_rows(sources[tag])
        for tag, case in self.leaves.items():
            count = self.code.length(self.lists[tag])
            batch = [self.code.rows(count, row) for row in case.cell.inputs]

            def gather(index: int, tag: int = tag, case: Case = case, batch: list[int] = batch) -> None:
                node = self.code.field(self.lists[tag], index)
                for position, tensor in enumerate(batch):
                    field = self.code.field(node, self.code.number(position))
                    self._copy(field, tensor, index, case.cell.inputs[position])

            self.code.repeat(count, gather)
            self._apply(case, count, batch, sources[tag])

    def _inner_states(self, count: int, cursors: Mapping[int, int], sources: Mapping[int, list[int]]) -> list[int]:
        """Gather what the cells take, call each once, and give the states."""
        code = self.code
        batches = {
            tag: [code.rows(self.counts[tag], row) for row in case.cell.inputs] for tag, case in self.inner.items()
        }
        filled = {tag: self._zero() for tag in self.inner}
        cursors = {**cursors, **{tag: self._zero() for tag in self.inner}}

        def take(tag: int, batch: Sequence[int], row: int) -> None:
            for source, target, kind in zip(sources[tag], batch, self.states, strict=True):
                self._copy(code.row(source, cursors[tag], kind), target, row, kind)
            self._advance(cursors[tag])

        def parent(tag: int, node: int) -> None:
            first = 0
            for position, kind in enumerate(self.inner[tag].fields):
                field = code.field(node, code.number(position))
                if kind == "child":
                    part = batches[tag][first : first + len(self.states)]
                    handlers = {
                        child: (lambda child=child, part=part: take(child, part, filled[tag])) for child in sources
                    }
                    by_tag(self.body, code.tag(field), handlers)
                    first += len(self.states)
                else:
                    self._copy(field, batches[tag][first], filled[tag], self.inner[tag].cell.inputs[first])
                    first += 1
            self._advance(filled[tag])

        def gather(index: int) -> None:
            node = code.field(self.nodes, index)
            handlers = {tag: (lambda tag=tag: parent(tag, node)) for tag in self.inner}
            handlers |= {tag: (lambda: None) for tag in self.leaves}
            by_tag(self.body, code.tag(node), handlers)

        code.repeat(count, gather)
        results: list[int] = []
        for tag, case in self.inner.items():
            targets = [code.register() for _ in self.states]
            self._apply(case, self.counts[tag], batches[tag], targets)
            results += targets
        return results

    def _apply(self, case: Case, count: int, batch: Sequence[int], targets: Sequence[int]) -> None:
        """Call a cell unless there is no row; rows of the results follow each other without gaps."""

        def call() -> None:
            values = self.body.call(case.cell, *map(Value, batch))
            for target, value, kind in zip(targets, values, self.states, strict=True):
                self.code.add(Opcode.COPY, self.code.rows(count, kind, into=target), value.register)

        self.code.branch(count, call, lambda: self._no_rows(targets))

    def _no_rows(self, targets: Sequence[int]) -> None:
        for target, kind in zip(targets, self.states, strict=True):
            self.code.rows(self.code.number(0), kind, into=target)

    def _copy(self, source: int, tensor: int, index: int, kind: RowType) -> None:
        """Copy one row into a batch."""
        self.code.add(Opcode.COPY, self.code.row(tensor, index, kind), source)

    def _zero(self) -> int:
        """A slot that counts from 0."""
        slot = self.code.slot()
        self.code.assign(slot, self.code.number(0))
        return slot

    def _advance(self, slot: int) -> None:
        self.code.compute(ShapeCode.ADD, slot, self.code.number(1), into=slot)
