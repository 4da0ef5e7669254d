"""What a pass is, and the record of what it changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from taut.graph import Graph


@dataclasses.dataclass(frozen=True, slots=True)
class Applicability:
    """How often a pass would apply to a graph.

    Attributes:
        count: number of places; 0 means that the pass would change nothing.
        reason: why `count` is 0, e.g. "no batch_norm follows a convolution"; empty otherwise.
    """

    count: int
    reason: str = ""

    def __bool__(self) -> bool:
        return self.count > 0


@dataclasses.dataclass(frozen=True, slots=True)
class Replacement:
    """One place that a pass rewrote.

    Attributes:
        old_nodes: ids of the replaced nodes, in the graph that the pass (or its round, where a pass runs until
            nothing is left to do) started from.
        old_ops: their operations.
        new_ops: the operations that stand there now.
        module_path: the module the last replaced node came from.
    """

    old_nodes: tuple[int, ...]
    old_ops: tuple[str, ...]
    new_ops: tuple[str, ...]
    module_path: str


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What one pass did to a graph.

    Attributes:
        graph: the new graph, validated.
        pass_name: the pass.
        options: every option with the value that was used; JSON-able, so that a recipe can replay it.
        replaced: the rewritten places, never empty.
        summary: one line for people.
    """

    graph: Graph
    pass_name: str
    options: Mapping[str, object]
    replaced: tuple[Replacement, ...]
    summary: str


class Pass(Protocol):
    """A rewrite of a graph that should make it cheaper; it acts on graphs only, never on a model's source.

    Attributes:
        name: stable identifier in snake_case, used in recipes.
        title: what it does, in a few words.
        changes_numerics: False where results agree up to rounding of the working precision.
        needs: features of the host (as `missing_needs` knows them) without which it cannot pay, or cannot run.
        after: passes that have to stand earlier in a recipe that holds both.
        conflicts: passes that a recipe cannot hold together with this one.
        defaults: the options with their default values.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def changes_numerics(self) -> bool: ...
    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def after(self) -> tuple[str, ...]: ...
    @property
    def conflicts(self) -> tuple[str, ...]: ...
    @property
    def defaults(self) -> Mapping[str, object]: ...

    def applies(self, graph: Graph, **options: object) -> Applicability:
        """Count the places where the pass would act, without doing the work."""
        ...

    def apply(self, graph: Graph, **options: object) -> Change:
        """Rewrite the graph.

        Raises:
            EmptyChangeError: if nothing would change; the message carries the reason.
            ArgumentError: for an option the pass does not have, or of the wrong type.
            GraphError: if the result is malformed (a defect of the pass).
        """
        ...
