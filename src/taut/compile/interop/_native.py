"""Loads the native search."""

from __future__ import annotations

try:
    from taut.compile.interop import _schedule  # pyright: ignore[reportMissingModuleSource]
except ImportError as error:
    from taut.errors import KernelError

    raise KernelError(
        f"the native search of schedules cannot be loaded: {error}",
        expected="taut installed by pip, which compiles it",
        fix="pip install -c constraints.txt -e . --no-build-isolation",
    ) from error

__all__ = ["_schedule"]
