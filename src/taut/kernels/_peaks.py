"""The rates that this host can reach."""

from taut.kernels._load import _native


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
