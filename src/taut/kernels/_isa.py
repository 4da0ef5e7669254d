"""Which instruction set the kernels use."""

from collections.abc import Iterator
from contextlib import contextmanager

from taut.kernels._load import _native


def available_isas() -> tuple[str, ...]:
    """Return the instruction sets that this processor can run, slowest first.

    Returns:
        A subset of `("scalar", "avx2", "avx512_vnni")` that always holds `"scalar"`.
    """
    return _native.available_isas()


def active_isa() -> str:
    """Return the instruction set that kernels use now; the best available one unless forced."""
    return _native.active_isa()


@contextmanager
def force(isa: str) -> Iterator[None]:
    """Use one instruction set within a `with` block, in the whole process.

    Results do not depend on the instruction set, so this is for tests and measurements.

    Args:
        isa: a member of `available_isas()`.

    Raises:
        KernelError: `isa` is unknown or this processor cannot run it.
    """
    before = _native.active_isa()
    _native.set_active_isa(isa)
    try:
        yield
    finally:
        _native.set_active_isa(before)
