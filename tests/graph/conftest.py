"""Graphs of the architectures, captured once a session."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from architectures import ARCHITECTURES, build, example
from taut.graph import Graph, capture


@functools.cache
def _captured(name: str) -> Graph:
    return capture(build(name), example(name), dynamic_shapes=ARCHITECTURES[name].dynamic_shapes)


@pytest.fixture(scope="session")
def captured() -> Callable[[str], Graph]:
    """The graph of an architecture by name."""
    return _captured
