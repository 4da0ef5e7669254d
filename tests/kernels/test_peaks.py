"""The peak measurement."""

import os

import pytest

from taut.errors import KernelError
from taut.kernels import force, measure_hand_over, measure_peaks


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


def test_passing_work_between_cores_takes_time() -> None:
    found = measure_hand_over()
    if len(os.sched_getaffinity(0)) < 2:
        assert found is None
    else:
        assert found is not None
        assert 1e-9 < found.round_trip < 1
        assert 1e6 < found.bytes_per_second < 1e13


def test_measuring_leaves_the_cores_of_this_thread_as_they_are() -> None:
    before = os.sched_getaffinity(0)
    measure_hand_over()
    assert os.sched_getaffinity(0) == before
