"""Text from files and from other people's code, made safe for a terminal."""

from __future__ import annotations

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def printable(text: str) -> str:
    """The text with control and direction-changing characters made visible: they could rewrite what stands there."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) not in _UNSAFE else "\ufffd"
        for character in text
    )


def one_line(text: str) -> str:
    """The same for a name: a line break or tab in it could pass for a line of ours."""
    return printable(text).replace("\n", "\ufffd").replace("\t", "\ufffd")
