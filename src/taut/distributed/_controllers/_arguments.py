"""Checks of what controllers are given."""

from __future__ import annotations

from collections.abc import Iterable

from taut.errors import ArgumentError


def as_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of parameters, each once, in their order.

    Raises:
        ArgumentError: they are not some strings.
    """
    if isinstance(names, str) or not (found := tuple(dict.fromkeys(names))):
        raise ArgumentError(
            "names",
            names,
            expected="the names of one parameter or more",
            fix="give [name for name, _ in module.named_parameters()]",
        )
    return found


def check_levels(**levels: int) -> None:
    """Refuse a level that is not a whole number from 0.

    Raises:
        ArgumentError: one is not.
    """
    for name, level in levels.items():
        check_count(name, level, least=0)


def check_count(name: str, value: int, *, least: int) -> None:
    """Refuse what is not a whole number from `least`.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(name, value, expected=f"a whole number from {least}")


def check_share(name: str, value: float) -> None:
    """Refuse a share outside of (0, 1].

    Raises:
        ArgumentError: it is outside.
    """
    if not 0 < value <= 1:
        raise ArgumentError(name, value, expected="a number above 0, and 1 at most")
