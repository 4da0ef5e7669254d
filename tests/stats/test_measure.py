"""Timing one callable, and judging the host."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from simulated_host import SimulatedHost

from taut.errors import ArgumentError, MeasurementError
from taut.stats import Arm, _quietness, measure, quietness


def steady_host() -> SimulatedHost:
    return SimulatedHost(iter(lambda: 1.0, None))


def test_values_are_seconds_of_one_call() -> None:
    host = steady_host()
    sample = measure(host.arm(1e-4), clock=host.clock, min_time=0.09, repeats=9)
    assert len(sample.seconds) == 9
    assert sample.median == pytest.approx(1e-4)
    assert sample.calls_per_value >= 100


def test_min_time_of_zero_times_single_calls() -> None:
    host = steady_host()
    sample = measure(host.arm(1e-4), clock=host.clock, min_time=0, repeats=368)
    assert sample.calls_per_value == 1
    assert sample.quantile(0.99).high == pytest.approx(1e-4)
    assert host.now == pytest.approx(370e-4)  # two more to warm up


def test_slow_calls_are_not_repeated_within_a_value() -> None:
    host = steady_host()
    assert measure(host.arm(3.0), clock=host.clock, repeats=3).calls_per_value == 1


def test_the_cyclic_collector_rests_while_the_clock_runs_and_no_longer() -> None:
    seen = set()
    measure(lambda: seen.add(gc.isenabled()), min_time=0)
    assert seen == {False}
    assert gc.isenabled()


def test_prepare_happens_before_the_calls() -> None:
    ready: list[bool] = []
    measure(Arm(lambda: ready[0], prepare=lambda: ready.append(True)), min_time=0)
    assert len(ready) >= 9


def test_a_callable_that_raises_gives_a_measurement_error() -> None:
    with pytest.raises(MeasurementError, match="ZeroDivisionError"):
        measure(lambda: 1 / 0)


@pytest.mark.parametrize("options", [{"repeats": 0}, {"min_time": -1}, {"warmup": -1}, {"clock": "sundial"}])
def test_arguments_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        measure(lambda: None, **options)


def test_quietness_gives_a_reason_for_each_doubt() -> None:
    found = quietness(0.05)
    assert found.quiet == (not found.reasons)
    assert found.jitter >= 0
    for share in (found.others, found.steal):
        assert share is None or 0 <= share <= 1


def test_load_average_is_judged_only_where_nothing_better_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_quietness, "load_average", lambda: 1000.0)
    monkeypatch.setattr(_quietness, "_host_times", lambda: None)
    assert any("load average" in reason for reason in quietness(0.01).reasons)
    times = iter([(0.0, 0.0, 0.0), (100.0, 90.0, 5.0)])
    monkeypatch.setattr(_quietness, "_host_times", lambda: next(times))
    busy = quietness(0.01)
    assert not any("load average" in reason for reason in busy.reasons)
    assert "the hypervisor took 5.0% of the time for other guests" in busy.reasons
    assert busy.others == pytest.approx(0.9, abs=0.01)


def test_quietness_refuses_no_time() -> None:
    with pytest.raises(ArgumentError, match="duration"):
        quietness(0)
