"""Tests of generated kernels need the extra "compile"."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("halide") is None:
        skip = pytest.mark.skip(reason="needs the package halide of the extra 'compile'")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)
