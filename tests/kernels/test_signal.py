"""Signals between processes: who waits is woken once the number is reached, and not before."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import KernelError
from taut.kernels import SIGNAL_BYTES, raise_signal, wait_for_signal


def signal() -> torch.Tensor:
    return torch.zeros(SIGNAL_BYTES // 4, dtype=torch.int32)


@given(number=st.integers(0, 2**32 - 1), ahead=st.integers(-(2**31), 2**31 - 1))
def test_a_number_is_reached_from_itself_on(number: int, ahead: int) -> None:
    raised = signal()
    raise_signal(raised, number + ahead)
    assert (wait_for_signal([raised], number, 0.0) == 0) == (ahead >= 0)


def test_the_first_that_has_reached_it_is_named() -> None:
    several = [signal() for _ in range(4)]
    assert wait_for_signal(several, 1, 0.0) is None
    for place in (3, 2, 0):
        raise_signal(several[place], 1)
        assert wait_for_signal(several, 1, 0.0) == place


@pytest.mark.parametrize("spin_seconds", [0.0, 1e-4])
def test_who_waits_is_woken(spin_seconds: float) -> None:
    # Back and forth: each step of one waits for a step of the other, asleep or not.
    left, right = signal(), signal()
    steps = 2000

    def answer() -> None:
        for step in range(1, steps + 1):
            assert wait_for_signal([left], step, 30.0, spin_seconds=spin_seconds) == 0
            raise_signal(right, step)

    other = threading.Thread(target=answer)
    other.start()
    for step in range(1, steps + 1):
        raise_signal(left, step)
        assert wait_for_signal([right], step, 30.0, spin_seconds=spin_seconds) == 0
    other.join()
    assert left.tolist() == right.tolist() == [steps, 0]


@pytest.mark.parametrize("seconds", [-1.0, 61.0, float("nan")])
def test_a_wait_that_cannot_be_interrupted_is_refused(seconds: float) -> None:
    with pytest.raises(KernelError, match="seconds"):
        wait_for_signal([signal()], 1, seconds)


def test_what_is_no_signal_is_refused() -> None:
    with pytest.raises(KernelError, match="signals"):
        wait_for_signal([], 1, 0.0)
    for wrong in (torch.zeros(2), torch.zeros(3, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)[::2]):
        with pytest.raises(KernelError, match="signal"):
            raise_signal(wrong, 1)
        with pytest.raises(KernelError, match="signal"):
            wait_for_signal([wrong], 1, 0.0)
