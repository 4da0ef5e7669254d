"""Scheduling on streams: on a device that is simulated the search finds what is best there, and keeps only that."""

from __future__ import annotations

import functools
import inspect
import json
import math
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from branching import Branches, Fire
from stream_trace import SimulatedStreams
from torch import nn

from taut.compile import schedule_streams
from taut.compile.interop import Stage
from taut.compile.scheduling import (
    CudaStreams,
    StreamedModel,
    chrome_trace,
    render_schedule,
    summary,
)
from taut.compile.scheduling.streams._costs import DeviceOracle
from taut.compile.scheduling.streams._cuda import _CAPTURING
from taut.compile.scheduling.streams._plan import plan_streams
from taut.errors import ArgumentError, GraphError, GuardError, Interrupted
from taut.graph import capture

COSTS = {"aten.conv2d.default": 10e-6, "aten.convolution.default": 30e-6, "aten.avg_pool2d.default": 2e-6}
NET = Branches().eval()
X = torch.randn(1, 16, 6, 6)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_where_streams_run_at_the_same_time_a_schedule_is_found_and_kept() -> None:
    device = SimulatedStreams(COSTS, other=1e-6)
    told: list[str] = []
    made = schedule_streams(
        NET, (X,), device=device, streams=4, budget=60, progress=lambda doing, _: told.append(doing)
    )
    report = made.schedule
    assert report is not None
    assert report.kept != "sequential"
    assert report.verdict is not None
    assert report.verdict.verdict == "faster"
    assert report.complete
    times = {one.name: one.measured_seconds for one in report.candidates}
    # In order 7 convolutions with their activations, pooling and the join; at best the longest branch and the join.
    assert times["sequential"] == pytest.approx(7 * 11e-6 + 2e-6 + 1e-6)
    assert times["list"] == pytest.approx(3 * 11e-6 + 1e-6)
    assert times["stages"] == pytest.approx(3 * 11e-6 + 1e-6)
    assert times[report.kept] == pytest.approx(min(times.values()))
    assert report.bound == pytest.approx(3 * 11e-6 + 1e-6)
    assert all(stage.predicted_seconds == pytest.approx(stage.measured_seconds) for stage in report.stages)
    assert torch.allclose(made(X), NET(X), atol=1e-5)
    assert {"timing each operator", "pricing merged convolutions"} < set(told)


class OneAtATime(SimulatedStreams):
    """A device all of whose streams share one unit, and on which waiting costs something."""

    def run(self, stream: int, seconds: float) -> None:
        self._now[stream] = max(self._now.values(), default=0.0)
        super().run(stream, seconds)

    def wait(self, stream: int, event: int) -> None:
        super().wait(stream, event)
        self._now[stream] = self._now.get(stream, 0.0) + 1e-6


def test_where_a_wide_kernel_costs_as_much_as_a_narrow_one_convolutions_are_merged() -> None:
    module = Fire().eval()
    device = OneAtATime(dict.fromkeys(COSTS, 10e-6) | {"aten.cat.default": 1e-6})
    made = schedule_streams(module, (X,), device=device, streams=2, budget=60)
    report = made.schedule
    assert report is not None
    times = {one.name: one.measured_seconds for one in report.candidates}
    assert times["sequential"] == pytest.approx(31e-6)  # three convolutions and the join
    assert times["merged sequential"] == times["merged stages"] == pytest.approx(20e-6)  # merged, nothing is joined
    assert report.kept.startswith("merged ")
    assert "one.0+three.0" in [name for stage in report.stages for group in stage.groups for name in group]
    torch.testing.assert_close(made(X), module(X).detach(), rtol=1e-4, atol=1e-4)
    exact = schedule_streams(module, (X,), device=device, streams=2, budget=60, exact=True)
    assert torch.equal(exact(X), module(X))
    assert exact.schedule is not None
    assert not any("merged" in one.name for one in exact.schedule.candidates)


def test_the_bound_is_that_of_the_kept_program_where_other_stages_are_best(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(replays: Mapping[str, Any], *_: object) -> tuple[str, dict[str, float], None]:
        return "sequential", dict.fromkeys(replays, 31e-6), None

    monkeypatch.setattr("taut.compile.scheduling.streams._schedule.choose", keep)
    device = OneAtATime(dict.fromkeys(COSTS, 10e-6) | {"aten.cat.default": 1e-6})
    report = schedule_streams(Fire().eval(), (X,), device=device, streams=2, budget=60).schedule
    assert report is not None
    assert (report.kept, report.staged) == ("sequential", "merged stages")
    assert report.critical_path == pytest.approx(21e-6)  # squeezed, one of two convolutions, joined


def test_more_convolutions_than_there_are_streams_are_merged() -> None:
    device = SimulatedStreams(COSTS, other=1e-6)
    planned = plan_streams(capture(NET, (X,)), [X], device, 2, "", 60.0, lambda _: None)
    classes = planned.operators.graph.merge_classes()
    three = frozenset(number for number, own in enumerate(classes) if own >= 0)
    assert len(three) == 3
    found = planned.search_again({three: 1e-9}, 60.0).schedule
    assert three in [frozenset(stage.operators) for stage in found.stages if stage.strategy == "merge"]


def test_where_nothing_runs_at_the_same_time_the_sequential_program_is_kept() -> None:
    device = OneAtATime(COSTS, other=1e-6)
    made = schedule_streams(Fire().eval(), (X,), device=device, streams=2, budget=60, exact=True)
    report = made.schedule
    assert report is not None
    assert report.kept == "sequential"
    assert report.verdict is not None
    assert report.verdict.verdict != "faster"
    assert report.complete
    assert all(len(stage.groups) == 1 for stage in report.stages)


def test_stages_are_measured_together_with_their_barriers() -> None:
    graph = capture(NET, (X,))
    device = SimulatedStreams(COSTS, other=1e-6)
    model = StreamedModel(graph, device=device)
    oracle = DeviceOracle(model.executor, [X], 4)
    one, five, before_three = (
        next(i for i, each in enumerate(model.operators.graph.operators) if each.name == name)
        for name in ("one.0", "five.0.0", "three.0.0")
    )
    assert oracle.alone(one) == pytest.approx(11e-6)
    assert oracle.measure(Stage(((one,), (five,), (before_three,)))) == pytest.approx(11e-6)
    assert oracle.measure(Stage(((one, five), (before_three,)))) == pytest.approx(22e-6)
    assert len(oracle.known) == 3


def test_the_report_goes_into_pages_traces_and_json() -> None:
    made = schedule_streams(NET, (X,), streams=2, budget=1, exact=True)  # names as in the graph: nothing is merged
    report = made.schedule
    assert report is not None
    assert (report.lane, report.device, report.workers) == ("stream", "cpu", 2)
    assert "2 streams of cpu" in summary(report)[0]
    assert "stream 1</text>" in render_schedule("net", report)
    events = chrome_trace(report)["traceEvents"]
    assert {"stream 0", "stream 1"} <= {event["args"].get("name") for event in events if event["ph"] == "M"}
    names = {operator.name for operator in made.operators.graph.operators}
    assert {event["name"] for event in events if event["ph"] == "X"} <= names
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["lane"] == "stream"
    assert set(report.timelines) == {report.kept, report.staged}
    assert sum(stage.measured_seconds for stage in report.stages) > 0


def test_one_stream_is_the_sequential_program() -> None:
    made = schedule_streams(NET, (X,), streams=1, budget=1)
    assert made.schedule is not None
    assert [one.name for one in made.schedule.candidates] == ["sequential"]
    assert made.schedule.verdict is None


def test_a_model_that_does_nothing_is_scheduled() -> None:
    made = schedule_streams(nn.Identity(), (X,), budget=1)
    assert torch.equal(made(X), X)
    assert made(X).data_ptr() != X.data_ptr()
    assert made.schedule is not None
    assert made.schedule.stages == ()


def test_inputs_that_do_not_fit_a_graph_are_named_before_anything_runs() -> None:
    graph = capture(NET, (X,))
    with pytest.raises(GuardError, match="dimension 0 is 2"):
        schedule_streams(graph, (torch.cat([X, X]),))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"streams": 0}, "streams"),
        ({"streams": 33}, "streams"),
        ({"budget": 0.0}, "budget"),
        ({"budget": math.nan}, "budget"),
        ({"device": "meta"}, "device"),
        ({"device": "no device"}, "device"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ArgumentError, match=word):
        schedule_streams(NET, (X,), **options)


def test_inputs_without_tensors_need_a_device() -> None:
    with pytest.raises(ArgumentError, match="device"):
        schedule_streams(NET, ())
    with pytest.raises(ArgumentError, match="tuple"):
        schedule_streams(NET, X)  # pyright: ignore[reportArgumentType]


def test_an_interrupt_is_told() -> None:
    def interrupt(doing: str, share: float) -> None:
        if "timing" in doing:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="nothing is kept"):
        schedule_streams(NET, (X,), progress=interrupt)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_a_sentence_says_what_to_do() -> None:
    with pytest.raises(ArgumentError, match="no CUDA device") as raised:
        schedule_streams(NET, (X,), device="cuda")
    assert "taut.compile" in str(raised.value)


def test_this_torch_has_what_cuda_streams_call() -> None:
    assert {"stream", "capture_error_mode"} <= set(inspect.signature(torch.cuda.graph).parameters)
    assert {"enable_timing", "external"} <= set(inspect.signature(torch.cuda.Event.__new__).parameters)
    for owner, names in (
        (torch.cuda.Event, ("record", "elapsed_time", "synchronize")),
        (torch.cuda.Stream, ("wait_event",)),
        (torch.cuda.CUDAGraph, ("replay",)),
        (torch.cuda, ("current_stream", "current_device", "device", "stream", "synchronize", "device_count")),
    ):
        assert [name for name in names if not hasattr(owner, name)] == []


class _Fake:
    """A stand-in for torch.cuda that notes what is called, so that the order of calls can be checked on any host."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        note = self.calls.append

        class Event:
            def __init__(self, enable_timing: bool = False, external: bool = False) -> None:
                self.timing, self.external = enable_timing, external

            def record(self, stream: Any) -> None:
                note(f"record {stream.name}{' external' if self.external else ''}")

            def synchronize(self) -> None:
                note("wait for event")

            def elapsed_time(self, other: Any) -> float:
                assert self.timing
                assert other.timing
                return 2.0

        class Stream:
            made = 0

            def __init__(self, device: Any, name: str = "") -> None:
                self.name = name or f"s{Stream.made}"
                Stream.made += not name

            def wait_event(self, event: Event) -> None:
                note(f"wait {self.name}")

        class CudaGraph:
            def replay(self) -> None:
                note("replay")

        @contextmanager
        def within(what: Any, *_: Any, **options: Any) -> Iterator[None]:
            name = getattr(what, "name", type(what).__name__)
            kind = f"graph on {options['stream'].name}" if options else name
            note(f"enter {kind}")
            try:
                yield
            finally:
                note(f"leave {kind}")

        current = Stream(None, "current")
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "current_stream": lambda device: current,
            "synchronize": lambda device: note("synchronize"),
            "Event": Event,
            "Stream": Stream,
            "CUDAGraph": CudaGraph,
            "graph": within,
            "stream": within,
            "device": within,
        }.items():
            patch.setattr(torch.cuda, name, value)


def test_a_cuda_capture_warms_up_then_captures_from_stream_0(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _Fake(monkeypatch)
    streams = CudaStreams("cuda")
    assert streams.device == torch.device("cuda", 0)

    def issue() -> str:
        fake.calls.append("issue")
        with streams.run_on(1):
            pass
        streams.wait(0, streams.record(1))
        streams.stamp(0)
        return "results"

    replay = streams.capture(issue)
    issued = [call for call in fake.calls if call == "issue"]
    assert len(issued) == 4
    first = fake.calls.index("issue")
    assert fake.calls[first - 1] == "synchronize"
    enter = next(i for i, call in enumerate(fake.calls) if call.startswith("enter graph"))
    assert fake.calls[enter - 1] == "synchronize"
    assert fake.calls[enter + 1] == "issue"
    fake.calls.clear()
    assert replay() == "results"
    assert fake.calls == ["enter device", "replay", "leave device"]


def test_calls_from_different_streams_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _Fake(monkeypatch)
    streams = CudaStreams()
    for _ in range(2):
        with streams.call():
            fake.calls.append("work")
    assert fake.calls == ["work", "record current", "wait current", "work", "record current"]
    fake.calls.clear()
    assert streams.time(lambda: fake.calls.append("run"), 2) == pytest.approx(2e-3)
    assert fake.calls == ["record current", "run", "run", "record current", "wait for event"]


def test_what_cannot_be_captured_is_a_graph_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _Fake(monkeypatch)
    streams = CudaStreams()
    runs = iter(range(10))

    def issue() -> None:
        if next(runs) == 3:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(GraphError, match="not permitted"):
        streams.capture(issue)


@pytest.mark.parametrize(
    ("first", "told"),
    [(GraphError("node %7 failed: not permitted"), GraphError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_what_went_wrong_in_a_capture_is_told_and_not_that_it_could_not_end(
    monkeypatch: pytest.MonkeyPatch, first: BaseException, told: type[BaseException]
) -> None:
    fake = _Fake(monkeypatch)

    @contextmanager
    def graph(*_: Any, **__: Any) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("capture was invalidated")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    runs = iter(range(10))

    def issue() -> None:
        if next(runs) == 3:
            raise first

    with pytest.raises(told) as raised:
        CudaStreams().capture(issue)
    assert str(first) in str(raised.value)
    assert "leave current" in fake.calls  # the caller's stream is current again, which torch does not see to
    assert not _CAPTURING.locked()


def test_a_replay_keeps_what_its_graph_reads_and_one_capture_runs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    _Fake(monkeypatch)
    locked: list[bool] = []

    def issue(weight: torch.Tensor) -> None:
        locked.append(_CAPTURING.locked())

    weight = torch.zeros(1)
    alive = weakref.ref(weight)
    replay = CudaStreams().capture(functools.partial(issue, weight))
    assert all(locked)
    del weight
    assert alive() is not None
    del replay
    assert alive() is None


def test_a_device_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _Fake(monkeypatch)
    with pytest.raises(ArgumentError, match="cuda:3"):
        CudaStreams("cuda:3")
    with pytest.raises(ArgumentError, match="cpu"):
        CudaStreams("cpu")
