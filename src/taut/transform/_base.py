"""The part that all passes share: find, rewrite, validate, record."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from taut.errors import ArgumentError, EmptyChangeError
from taut.graph import Graph, validate
from taut.transform._protocol import Applicability, Change, Replacement


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A place where a pass acts.

    Attributes:
        nodes: ids of the nodes that are replaced; the last one is where the new operations are emitted.
        new_ops: what is emitted.
        details: whatever the pass needs to emit it.
    """

    nodes: tuple[int, ...]
    new_ops: tuple[str, ...]
    details: object = None


class GraphPass(abc.ABC):
    """A pass made of `find` (cheap, touches no tensor data) and `rewrite`; see `Pass` for the attributes."""

    name: ClassVar[str]
    title: ClassVar[str]
    changes_numerics: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    conflicts: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, object]] = {}
    reason: ClassVar[str]
    """Why there is nothing to do, when there is nothing to do."""
    repeats: ClassVar[bool] = False
    """Whether a rewrite may open the way for another one."""

    @abc.abstractmethod
    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """The places where the pass acts; no two of them share a replaced node."""

    @abc.abstractmethod
    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """The graph with all matches replaced."""

    def remark(self, graph: Graph, options: Mapping[str, object]) -> str:
        """What else people should know of the change, for the summary."""
        return ""

    def applies(self, graph: Graph, **options: object) -> Applicability:
        """Count the places where the pass would act, without doing the work."""
        count = len(self.find(graph, self._settle(options)))
        return Applicability(count, "" if count else self.reason)

    def apply(self, graph: Graph, **options: object) -> Change:
        """Rewrite the graph; see `Pass.apply`."""
        settled, given = self._settle(options), graph
        replaced: list[Replacement] = []
        while matches := self.find(graph, settled):
            replaced += [_replacement(graph, match) for match in matches]
            graph = self.rewrite(graph, matches, settled)
            if not self.repeats:
                break
        if not replaced:
            raise EmptyChangeError(f"{self.name} changes nothing: {self.reason}", fix=f"leave {self.name} out")
        validate(graph)
        places = "place" if len(replaced) == 1 else "places"
        summary = f"{self.title}: {len(replaced)} {places}"
        remark = self.remark(given, settled)
        return Change(graph, self.name, settled, tuple(replaced), f"{summary}; {remark}" if remark else summary)

    def _settle(self, options: Mapping[str, object]) -> dict[str, object]:
        for option, value in options.items():
            if option not in self.defaults:
                known = ", ".join(self.defaults) or "no options"
                raise ArgumentError(f"{self.name}.{option}", value, expected=f"one of: {known}")
            kind = type(self.defaults[option])
            if not isinstance(value, kind) and not (kind is tuple and isinstance(value, list)):
                raise ArgumentError(f"{self.name}.{option}", value, expected=kind.__name__)
        return {**self.defaults, **options}


def _replacement(graph: Graph, match: Match) -> Replacement:
    last = graph.nodes[match.nodes[-1]]
    ops = tuple(graph.nodes[node].op for node in match.nodes)
    return Replacement(match.nodes, ops, match.new_ops, last.module_path)
