"""The peak measurement."""

import pytest

from taut.errors import KernelError
from taut.kernels import force, measure_peaks


def test_peaks_are_plausible_rates() -> None:
    peaks = measure_peaks(1)
    assert set(peaks) - {"bf16"} == {"fp32", "int8", "l1", "l2", "l3", "dram"}
    assert all(1e7 < rate < 1e16 for rate in peaks.values())


def test_the_scalar_loops_and_a_team_of_threads_run_too() -> None:
    with force("scalar"):
        peaks = measure_peaks(2)
    assert all(rate > 0 for rate in peaks.values())
    assert "bf16" not in peaks


@pytest.mark.parametrize("threads", [0, -1, 4097])
def test_refuses_a_thread_count_out_of_range(threads: int) -> None:
    with pytest.raises(KernelError, match="threads"):
        measure_peaks(threads)
