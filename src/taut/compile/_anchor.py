"""A kernel whose epilogue is still open."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from taut.codegen import Expression, Operand, Recipe
from taut.compile._grouped import Grouped
from taut.compile._pointwise import Expressions
from taut.compile._views import Buffer, View
from taut.graph import Dim


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A node's kernel before its epilogue is known.

    Attributes:
        inputs: what the template reads, in order.
        extras: operands of the epilogue that the node itself has, such as the bias; aligned with `sizes`.
        sizes: those of the output as the kernel sees it.
        view: the node's value over a row-major buffer of these sizes.
        recipe: makes the recipe from the epilogue's operands, the output and the expression.
        in_place: whether the output may overwrite an operand of an epilogue that is not heavy.
    """

    inputs: tuple[View, ...]
    extras: tuple[View, ...]
    sizes: tuple[Dim, ...]
    view: Callable[[Buffer], View | Grouped]
    recipe: Callable[[Sequence[Operand], Operand, Expression], Recipe]
    in_place: bool = False

    def start(self, made: Expressions) -> int:
        """The entry of the node's own value: the sum, and the extras added."""
        entry = made.add("accumulator")
        for number in range(len(self.extras)):
            entry = made.add("add", entry, made.add("operand", len(self.inputs) + number))
        return entry
