"""Branching by the tag of an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from taut.compile._builder_body import Body
from taut.runtime import Opcode, ShapeCode


def by_tag(body: Body, tag: int, handlers: Mapping[int, Callable[[], None]]) -> None:
    """Code for each tag; the program stops at another one.

    Args:
        body: where the code goes.
        tag: the slot of the tag.
        handlers: write the code for each tag.
    """
    code = body.code
    (first, handler), *others = handlers.items()
    is_first = code.compute(ShapeCode.EQ, tag, code.number(first))
    if others:
        code.branch(is_first, handler, lambda: by_tag(body, tag, dict(others)))
        return
    code.add(Opcode.CHECK, is_first, body.message(f"a node has the tag {{{tag}}}, which no case is given for"))
    handler()
