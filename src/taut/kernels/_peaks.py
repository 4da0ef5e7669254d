"""The rates that this host can reach."""

from typing import NamedTuple

from taut.kernels._load import _native


class HandOver(NamedTuple):
    """What it costs to pass work between two cores.

    Attributes:
        round_trip: seconds for a cache line to another core and back.
        bytes_per_second: at which a core reads what another has just written.
    """

    round_trip: float
    bytes_per_second: float


def measure_hand_over() -> HandOver | None:
    """Measure what passing work between the first two cores costs now; it takes milliseconds.

    The cores of a virtual machine may share a cache at one time and not at another: figures of parallel programs of
    the two times, several times apart for small steps, cannot be compared.

    Returns:
        Medians; None where this process may use one core only, or the system does not say which.
    """
    found = HandOver(*_native.measure_hand_over())
    return found if found.round_trip else None


def measure_peaks(threads: int) -> dict[str, float]:
    """Measure the arithmetic peaks and the read bandwidths of this host, for about a second.

    Each figure is the best of many bursts of some milliseconds, on the active instruction set.

    Args:
        threads: how many threads work at once, 1 to 4096.

    Returns:
        `"fp32"`, `"bf16"` (only where the processor has a bf16 dot product) and `"int8"` in operations per second
        of all threads together, a multiply-add counting as two; `"l1"`, `"l2"`, `"l3"` and `"dram"` in bytes read
        per second. Cache sizes come from sysfs.

    Raises:
        KernelError: `threads` is out of range.
    """
    return _native.measure_peaks(threads)
