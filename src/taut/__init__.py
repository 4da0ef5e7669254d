"""taut: make deep-learning workloads cheaper, and prove it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from taut.errors import TautError

if TYPE_CHECKING:
    from taut.compile import compile_model as compile  # noqa: A004 - the function of that name, on models
    from taut.optimize import Result, Session, load, optimize, quantize

__version__ = "0.1.0"
__all__ = ["Result", "Session", "TautError", "__version__", "compile", "load", "optimize", "quantize"]


def __getattr__(name: str) -> Any:
    # Rooms that need torch load on first use, so that `taut --help` starts at once.
    if name in ("compile", "optimize"):
        return importlib.import_module(f"taut.{name}")
    if name in ("Result", "Session", "load", "quantize"):
        return getattr(importlib.import_module("taut.optimize"), name)
    raise AttributeError(f"module 'taut' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
