"""A model scheduled on the streams of a device: the search, the measurements, and what comes of them."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from taut.compile._prepare import prepare
from taut.compile.interop import lower_bound
from taut.compile.scheduling._merge import merge_convolutions
from taut.compile.scheduling._report import CandidateTime, ScheduleReport, StageTime, Verdict
from taut.compile.scheduling._schedule import Progress
from taut.compile.scheduling.streams._choose import choose
from taut.compile.scheduling.streams._costs import merge_prices
from taut.compile.scheduling.streams._cuda import streams_of
from taut.compile.scheduling.streams._model import StreamedModel
from taut.compile.scheduling.streams._plan import MERGED, STAGES, Candidate, Planned, plan_streams
from taut.compile.scheduling.streams._program import check_streams
from taut.compile.scheduling.streams._streams import Streams
from taut.compile.scheduling.streams._timeline import profile
from taut.errors import ArgumentError, Interrupted
from taut.graph import Graph, InputChecker, capture

_SHARES = {"search": 0.5, "prices": 0.1, "pairs": 0.2}
_LONGEST_PAIRS = 10.0


def schedule_streams(
    model: torch.nn.Module | ExportedProgram | Graph,
    example_inputs: tuple[Any, ...],
    example_kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    device: torch.device | str | Streams | None = None,
    streams: int = 8,
    budget: float = 60.0,
    exact: bool = False,
    progress: Progress | None = None,
) -> StreamedModel:
    """Choose, by measurement, which operators of a model run at the same time on a GPU, captured in one CUDA graph.

    Operators run as ATen's kernels. The dynamic program of IOS places them in stages, whose groups run on a stream
    each, over costs that the device's own clock gives: groups run together, and convolutions of one input are tried as
    one. Beside these stages stand the greedy ones and a schedule without barriers. The best is kept only if a paired
    comparison finds it faster than the sequential program, which is a CUDA graph too. Before anything is captured,
    vector clocks check that every result is waited for and no memory is taken that is still in use.

    Args:
        model: a module, a program that torch.export made, or a captured graph; its weights are copied to the device.
        example_inputs: positional arguments to trace it and to measure with.
        example_kwargs: keyword arguments likewise.
        dynamic_shapes: which dimensions may vary, as `taut.compile` takes them; each set of sizes is captured when it
            first comes, with the schedule of the example's sizes.
        device: where to run; by default where the first input is. On "cpu" everything runs in order, which checks
            schedules and makes nothing faster.
        streams: most groups of a stage.
        budget: seconds for searching and measuring, after the trace.
        exact: whether results must stay those of the sequential program bit for bit: no convolutions are merged then.
        progress: told what is being done, and the share of it that is done.

    Returns:
        The model, with a report of its schedule.

    Raises:
        ArgumentError: an argument is out of range, or torch sees no such device.
        ExportError: torch.export refuses the model.
        GraphError: what it does cannot be captured, or the inputs do not fit a captured graph (GuardError).
        Interrupted: after Ctrl-C.

    Source: Ding et al., "IOS: Inter-Operator Scheduler for CNN Acceleration" (MLSys 2021).
    """
    check_streams(streams)
    if not 0 < budget < math.inf:
        raise ArgumentError("budget", budget, expected="a positive, finite number of seconds")
    if not isinstance(example_inputs, tuple):
        raise ArgumentError(
            "example_inputs", type(example_inputs).__name__, expected="a tuple of example inputs", fix="write (x,)"
        )
    given = (example_inputs, example_kwargs or {})
    tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor)]
    if device is None:
        if not tensors:
            raise ArgumentError("device", None, expected="a device, since no input is a tensor that is on one")
        device = tensors[0].device
    chosen = streams_of(device) if isinstance(device, (str, torch.device)) else device
    say = progress or (lambda _doing, _share: None)
    say("capturing the model", 0.0)
    graph = model
    if not isinstance(graph, Graph):
        graph = capture(graph, example_inputs, example_kwargs, dynamic_shapes=dynamic_shapes)
    graph = prepare(graph)
    constants = {key: constant.to(chosen.device) for key, constant in graph.constants.items()}
    graph = dataclasses.replace(graph, constants=constants)
    args, kwargs = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(chosen.device), given)
    try:
        return _Job(graph, (args, kwargs), chosen, streams, budget, say, exact=exact).run()
    except KeyboardInterrupt as interrupt:
        raise Interrupted("stopped before a schedule was proven faster: nothing is kept") from interrupt


class _Job:
    """Searches, measures and chooses."""

    def __init__(
        self,
        graph: Graph,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        device: Streams,
        streams: int,
        budget: float,
        say: Progress,
        *,
        exact: bool,
    ) -> None:
        self._graph = graph
        self._arguments = arguments
        checker = InputChecker(graph)
        self._inputs = checker.bind(*arguments)
        checker.check(self._inputs)
        self._device = device
        self._streams = streams
        self._budget = budget
        self._say = say
        self._exact = exact
        self._began = time.perf_counter()

    def run(self) -> StreamedModel:
        """All of it."""
        first = self._plan(self._graph, "")
        plans = [first]
        if not self._exact and self._streams > 1:
            merged = self._merge(first)
            plans += [] if merged is None else [merged]
        best = min(plans, key=lambda plan: plan.cost)
        candidates: dict[str, Candidate] = {}
        plan_of: dict[str, Planned] = {}
        for plan in plans:
            own = plan.candidates(self._device)
            candidates |= own
            plan_of |= dict.fromkeys(own, plan)
        doing = "comparing the best with the sequential program"
        self._say(doing, 0.0)
        args, kwargs = self._arguments
        replays = {name: one.model.replayer(*args, **kwargs) for name, one in candidates.items()}
        seconds = max(min(self._left(), _LONGEST_PAIRS), _SHARES["pairs"] * self._budget)
        kept, times, verdict = choose(replays, self._device, seconds, lambda share: self._say(doing, share))
        made = candidates[kept].model
        made.schedule = self._report(best, plan_of[kept], candidates, kept, times, verdict)
        return made

    def _left(self) -> float:
        return self._budget - (time.perf_counter() - self._began)

    def _plan(self, graph: Graph, prefix: str) -> Planned:
        doing = f"timing each {prefix}operator"
        return plan_streams(
            graph,
            self._inputs,
            self._device,
            self._streams,
            prefix,
            _SHARES["search"] * self._left(),
            lambda share: self._say(doing, share),
        )

    def _merge(self, first: Planned) -> Planned | None:
        """Price merged convolutions; where the best stages have some, plan the graph that has them."""
        self._say("pricing merged convolutions", 0.0)
        stop = self._left() - _SHARES["prices"] * self._budget
        prices = merge_prices(first.operators, self._device, self._inputs, lambda: self._left() < stop)
        if not prices:
            return None
        seconds = {members: price for members, (price, _) in prices.items()}
        found = first.search_again(seconds, self._left() / 4)
        chosen = [
            prices[frozenset(stage.operators)][1]
            for stage in found.schedule.stages
            if stage.strategy == "merge" and len(stage.groups) > 1
        ]
        return self._plan(merge_convolutions(self._graph, chosen), MERGED) if chosen else None

    def _report(
        self,
        best: Planned,
        used: Planned,
        candidates: Mapping[str, Candidate],
        kept: str,
        times: Mapping[str, float],
        verdict: Verdict | None,
    ) -> ScheduleReport:
        staged = best.staged(self._device)
        spans, measured = profile(staged.executor, staged.program, self._inputs)
        timelines = {best.prefix + STAGES: spans}
        if kept not in timelines:
            model = candidates[kept].model
            timelines[kept], _ = profile(model.executor, model.program, self._inputs)
        bound = lower_bound(used.operators.graph, used.table)
        plan = best.plan
        return ScheduleReport(
            workers=self._streams,
            kept=kept,
            staged=best.prefix + STAGES,
            seconds=times[kept],
            critical_path=bound.critical_path,
            work_by_workers=bound.work_by_workers,
            stages=_stage_times(best, measured),
            candidates=tuple(CandidateTime(name, one.predicted, times[name]) for name, one in candidates.items()),
            verdict=verdict,
            operators=len(best.operators.graph),
            states=plan.schedule.states,
            transitions=plan.schedule.transitions,
            requests=plan.schedule.requests,
            measured=plan.measured,
            search_seconds=plan.seconds,
            complete=plan.complete,
            timelines={name: timelines[name] for name in dict.fromkeys((kept, best.prefix + STAGES))},
            lane="stream",
            device=str(self._device.device),
        )


def _stage_times(best: Planned, measured: Sequence[float]) -> tuple[StageTime, ...]:
    costs = best.plan.schedule.costs or ()
    return tuple(
        StageTime(strategy, groups, predicted, found, estimated)
        for (strategy, groups), predicted, found, estimated in zip(
            best.described(), costs, measured, best.plan.estimated, strict=True
        )
    )
