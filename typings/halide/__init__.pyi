"""Halide ships no types; this lets the rest of the code be checked."""

from typing import Any

def __getattr__(name: str) -> Any: ...
