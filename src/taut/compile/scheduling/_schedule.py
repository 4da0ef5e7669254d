"""A model scheduled over several workers: the search, the measurements, and what comes of them."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch.export import ExportedProgram

from taut.compile._model import CompiledModel, CompileReport, compile_model
from taut.compile._program import Lowered, lower
from taut.compile._views import View
from taut.compile.interop import MOST_WORKERS
from taut.compile.scheduling._choose import Choice, affordable, choose, take_turns
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._merge import merge_convolutions
from taut.compile.scheduling._plan import (
    SEQUENTIAL,
    STAGES,
    Candidate,
    Measured,
    candidates_of,
    find_stages,
    measure_split,
    measure_steps,
)
from taut.compile.scheduling._price import merge_prices
from taut.compile.scheduling._report import CandidateTime, ScheduleReport, StageTime, noted
from taut.compile.scheduling._search import StagePlan
from taut.compile.scheduling._timeline import spans_of, stage_seconds
from taut.errors import ArgumentError, Interrupted
from taut.graph import Graph
from taut.runtime import Opcode

Progress: TypeAlias = Callable[[str, float], None]
"""Told what is being done, and the share of it that is done."""

_MERGED = "merged "
_COMPARING = "comparing the best with the sequential program"
_STEPS, _STAGES, _PRICES, _MERGED_STEPS, _MERGED_STAGES = 0.25, 0.5, 0.6, 0.7, 0.8
"""The share of the budget that is spent when each of these ends at the latest."""
_LONGEST_CHOICE, _SHORTEST_CHOICE = 15.0, 0.15
"""Seconds of choosing at most, and the share of the budget at least."""
_LAST_TURNS = 0.5


class ScheduledModel(CompiledModel):
    """A compiled model with the schedule that was kept, called like the original.

    Attributes:
        schedule: stages, strategies, predicted and measured times, the bound and the gap to it.
    """

    def __init__(
        self, compiled: CompiledModel, candidate: Candidate, schedule: ScheduleReport, report: CompileReport
    ) -> None:
        program = dataclasses.replace(candidate.lowered.program, notes=noted(schedule))
        lowered = dataclasses.replace(candidate.lowered, program=program)
        super().__init__(compiled.graph, lowered, candidate.session, report)
        self.schedule = schedule


def schedule(
    model: torch.nn.Module | ExportedProgram | Graph | CompiledModel,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: dict[str, Any] | None = None,
    *,
    workers: int = 2,
    budget: float = 60.0,
    exact: bool = False,
    progress: Progress | None = None,
) -> ScheduledModel:
    """Compile a model and choose, by measurement, what of it runs at the same time.

    The steps of the program are placed in stages by the dynamic program of IOS over measured costs: groups of steps on
    a worker each, one step on all workers, or convolutions of one input merged into one. Beside these stages stand
    schedules without barriers. The best is kept only if a paired comparison finds it faster than the sequential
    program; otherwise that one is. Results equal those of the sequential program up to rounding.
    Convolutions of a model with modules on devices of their own are not merged.

    Args:
        model: a module, a program that torch.export made, a captured graph, or a compiled model of fixed sizes.
        example_inputs: positional arguments to compile and to measure with; random ones of the right shapes where
            nothing needs to be traced.
        example_kwargs: keyword arguments to trace it with.
        workers: threads, with the caller's.
        budget: seconds for searching and measuring; generating kernels does not count. What there was no time to
            measure is estimated, and the report says so.
        exact: whether results must stay those of the sequential program bit for bit: no convolutions are merged then,
            and no images split by rows.
        progress: told what is being done.

    Returns:
        The model, with a report of its schedule.

    Raises:
        ArgumentError: an argument is out of range, or sizes of the model may vary.
        Interrupted: after Ctrl-C; `result` of the error is the model with the best that was measured, if any.
        ExportError, GraphError, MissingExtraError, BuildError: as `taut.compile` does.

    Source: Ding et al., "IOS: Inter-Operator Scheduler for CNN Acceleration" (MLSys 2021).
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise ArgumentError("workers", workers, expected=f"1 to {MOST_WORKERS}")
    if not 0 < budget < math.inf:
        raise ArgumentError("budget", budget, expected="a positive, finite number of seconds")
    say = progress or (lambda _doing, _share: None)
    compiled = model
    if not isinstance(compiled, CompiledModel):
        compiled = compile_model(
            model,  # pyright: ignore[reportArgumentType]
            example_inputs,
            example_kwargs,
            progress=lambda _, done, total: say(f"generating {total} kernels", done / total),
        )
    _check_sequential(compiled)
    _check_static(compiled)
    given = compiled.bind(*example_inputs, **(example_kwargs or {})) if example_inputs or example_kwargs else ()
    inputs = given or tuple(_random_inputs(compiled))
    return _Job(compiled, inputs, workers, budget, say, exact=exact).run()


def _check_sequential(compiled: CompiledModel) -> None:
    """Refuse what was scheduled before: there would be no program on one worker to compare with."""
    if any(words[0] == Opcode.PARALLEL for function in compiled.program.functions for words in function.instructions):
        raise ArgumentError(
            "model",
            "a program that runs on several workers already",
            expected="a model that is not scheduled yet",
            fix="schedule the model or the compiled model that it was made of",
        )


def _check_static(compiled: CompiledModel) -> None:
    """Refuse what has no fixed sizes."""
    symbols = list(compiled.graph.symbols)
    for step in compiled.lowered.blocks[0].steps:
        for view in (*getattr(step, "inputs", ()), *getattr(step, "outputs", ())):
            if isinstance(view, View) and not all(isinstance(size, int) for size in view.sizes):
                symbols.append(f"a size of {step.label}")
    if symbols:
        raise ArgumentError(
            "model",
            f"{', '.join(symbols[:3])} may vary",
            expected="a model of fixed sizes, since a schedule is made for the times of its steps",
            fix="compile it without dynamic shapes; what depends on data cannot be scheduled",
        )


def _random_inputs(compiled: CompiledModel) -> Sequence[Any]:
    from taut.compile._inspect import random_inputs

    parameters = compiled.program.parameters
    shapes = [tuple(int(size) for size in parameter.shape) for parameter in parameters]
    return random_inputs(parameters, shapes, [0] * len(parameters))


class _Job:
    """Searches, measures and chooses; what was found so far survives an interrupt."""

    def __init__(
        self,
        compiled: CompiledModel,
        inputs: Sequence[Any],
        workers: int,
        budget: float,
        say: Progress,
        *,
        exact: bool,
    ) -> None:
        self._compiled = compiled
        self._inputs = inputs
        self._workers = workers
        self._budget = budget
        self._say = say
        self._exact = exact
        self._began = time.perf_counter()
        self._kernels = Kernels()
        self._candidates: list[Candidate] = []
        self._measured: dict[str, Measured] = {}  # by the name of the candidate
        self._plan: StagePlan | None = None
        self._choice: Choice | None = None
        self._staged: Candidate | None = None
        self._report = compiled.report

    def run(self) -> ScheduledModel:
        """All of it."""
        try:
            self._search()
            self._say(_COMPARING, 0.0)
            self._choice = choose(
                self._candidates,
                self._inputs,
                max(min(self._left(1.0), _LONGEST_CHOICE), _SHORTEST_CHOICE * self._budget),
                lambda share: self._say(_COMPARING, share),
            )
            return self._outcome(self._choice)
        except KeyboardInterrupt as interrupt:
            raise self._interrupted() from interrupt

    def _interrupted(self) -> Interrupted:
        """What is said after Ctrl-C, with what was chosen, or the sequential program and the best stages so far."""
        if self._choice is not None:
            error = Interrupted("stopped after the choice, while the report was made")
            error.result = self._outcome(self._choice)
            return error
        if not self._candidates:
            return Interrupted("stopped before the steps of the program were measured")
        if self._plan is None:
            self._take_stages(self._measured[SEQUENTIAL])
        error = Interrupted("stopped before a schedule was proven faster: the sequential program is kept")
        times = take_turns(affordable(self._candidates, self._inputs, _LAST_TURNS), self._inputs, _LAST_TURNS)
        error.result = self._outcome(Choice(self._candidates[0], times, None))
        return error

    def _left(self, share: float = 1.0) -> float:
        """Seconds until that share of the budget is spent; generating kernels does not count."""
        return share * self._budget - (time.perf_counter() - self._began - self._kernels.seconds)

    def _search(self) -> None:
        measured = self._measure(self._compiled.lowered, _STEPS)
        if self._workers == 1 or not measured.costs.steps:
            self._take_stages(measured)
            return
        self._take(measured, find_stages(measured, self._left(_STAGES), self._stages_told))
        if not self._exact and not self._compiled.lowered.devices:
            self._merge(measured)

    def _measure(self, lowered: Lowered, share: float, prefix: str = "") -> Measured:
        """What the steps of a program take, and the program itself as a candidate."""
        doing = f"timing each {prefix}step"
        self._say(doing, 0.0)
        measured = measure_steps(lowered, self._inputs, self._workers, self._kernels)
        self._add(measured, [measured.sequential(prefix)])
        measure_split(measured, self._left(share), lambda done: self._say(doing, done))
        return measured

    def _stages_told(self, _: int) -> None:
        self._say("measuring stages", min(1.0, 1 - self._left() / self._budget))

    def _add(self, measured: Measured, made: Sequence[Candidate]) -> None:
        self._candidates += made
        self._measured |= {one.name: measured for one in made}

    def _take(self, measured: Measured, plan: StagePlan, prefix: str = "") -> None:
        made = candidates_of(measured, plan, prefix, exact=self._exact)
        self._add(measured, made)
        if self._plan is None or sum(plan.schedule.costs or ()) < sum(self._plan.schedule.costs or ()):
            self._plan, self._staged = plan, made[0]

    def _take_stages(self, measured: Measured) -> None:
        """The best stages by what is known, for the report only."""
        self._plan = find_stages(measured, 0.0, lambda _: None)
        (self._staged,) = measured.candidates({STAGES: measured.staged(self._plan)})
        self._measured[STAGES] = measured

    def _merge(self, measured: Measured) -> None:
        """Price merged convolutions; where the best stages have some, make a program of them."""
        self._say("pricing merged convolutions", 0.0)
        graph = self._compiled.graph
        prices = merge_prices(
            graph, measured.lowered, measured.operators, self._workers, self._kernels, lambda: self._left(_PRICES) < 0
        )
        if not prices:
            return
        seconds = {members: price for members, (price, _) in prices.items()}
        found = find_stages(measured, self._left(_PRICES), self._stages_told, seconds)
        chosen = [
            prices[frozenset(stage.operators)][1]
            for stage in found.schedule.stages
            if stage.strategy == "merge" and len(stage.groups) > 1
        ]
        if not chosen:
            return
        merged = merge_convolutions(graph, chosen)
        lowered = lower(merged, tiles=measured.lowered.tiles)
        self._kernels.add(lowered.recipes())
        if not self._kernels.has(lowered.recipes()):
            return
        again = self._measure(lowered, _MERGED_STEPS, _MERGED)
        self._take(again, find_stages(again, self._left(_MERGED_STAGES), self._stages_told), _MERGED)

    def _outcome(self, choice: Choice) -> ScheduledModel:
        plan, staged = self._plan, self._staged
        assert plan is not None
        assert staged is not None
        measured = self._measured[staged.name]
        critical, work = self._measured[choice.kept.name].bound()
        timelines = {one.name: spans_of(one, self._inputs) for one in (choice.kept, staged)}
        report = ScheduleReport(
            workers=self._workers,
            kept=choice.kept.name,
            staged=staged.name,
            seconds=choice.seconds[choice.kept.name],
            critical_path=critical,
            work_by_workers=work,
            stages=self._stage_times(measured, plan, staged),
            candidates=tuple(
                CandidateTime(one.name, one.predicted, choice.seconds[one.name])
                for one in self._candidates
                if one.name in choice.seconds
            ),
            untimed=tuple(one.name for one in self._candidates if one.name not in choice.seconds),
            verdict=choice.verdict,
            operators=len(measured.operators.graph),
            states=plan.schedule.states,
            transitions=plan.schedule.transitions,
            requests=plan.schedule.requests,
            measured=plan.measured,
            search_seconds=plan.seconds,
            estimated_steps=len(measured.estimated),
            complete=plan.complete,
            timelines=timelines,
        )
        return ScheduledModel(self._compiled, choice.kept, report, self._report)

    def _stage_times(self, measured: Measured, plan: StagePlan, staged: Candidate) -> tuple[StageTime, ...]:
        counts = [sum(len(group) for made in code for group in made) for code in plan.code]
        seconds = stage_seconds(staged, self._inputs, counts)
        operators, costs = measured.operators.graph.operators, plan.schedule.costs
        assert costs is not None
        merged = staged.name.startswith(_MERGED)
        return tuple(
            StageTime(
                _strategy(stage.strategy, [operators[number].name for number in stage.operators], merged=merged),
                tuple(tuple(operators[number].name for number in group) for group in stage.groups),
                predicted,
                found,
                estimated,
            )
            for stage, predicted, found, estimated in zip(
                plan.schedule.stages, costs, seconds, plan.estimated, strict=True
            )
        )


def _strategy(strategy: str, names: Sequence[str], *, merged: bool) -> str:
    """What is said of a stage: that it is one convolution in place of several counts for more than how it runs."""
    return "merge" if merged and len(names) == 1 and "+" in names[0] else strategy
