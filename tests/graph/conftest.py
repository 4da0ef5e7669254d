"""Graphs of the architectures, captured once a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import architectures
from taut.graph import Graph


@pytest.fixture(scope="session")
def captured() -> Callable[[str], Graph]:
    """The graph of an architecture by name."""
    return architectures.captured
