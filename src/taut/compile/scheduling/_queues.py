"""Schedules without barriers as text, which a recipe can hold, and programs that keep to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from taut.compile._generate import generate, library_of
from taut.compile._model import CompiledModel
from taut.compile._parallel import Item, Part, Queues, apply_schedule
from taut.compile.scheduling._candidates import candidates, predicted
from taut.compile.scheduling._choose import choose
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._plan import SEQUENTIAL, Candidate, programs_of
from taut.compile.scheduling._steps import step_seconds
from taut.errors import ArgumentError, BuildError
from taut.runtime import load

_ITEM = re.compile(r"([0-9]{1,6})(?::([0-9]{1,3})/([0-9]{1,3})(r?))?")


def write_queues(queues: Queues) -> list[str]:
    """One text for each worker: numbers of steps, `3:0/2` for the first of two parts, with `r` for parts by rows."""
    return [" ".join(map(_text, own)) for own in queues.workers]


def read_queues(texts: Sequence[str]) -> Queues:
    """What `write_queues` wrote; raises ArgumentError for anything else."""
    return Queues(tuple(tuple(_item(word, texts) for word in text.split()) for text in texts))


def propose_queues(
    model: CompiledModel, inputs: tuple[Any, ...], workers: int, *, budget: float
) -> tuple[CompiledModel, list[str]] | None:
    """The fastest schedule without barriers, if it is surely faster than the sequential program.

    Sizes may vary: the schedule is right for all of them, and fast for those of the inputs.

    Args:
        model: a compiled model.
        inputs: positional arguments of a call.
        workers: threads.
        budget: seconds for choosing, after the programs were made.

    Returns:
        The model with the schedule, and the schedule as text; None if no schedule is surely faster.
    """
    given, block = model.bind(*inputs), model.lowered.blocks[0]
    durations = step_seconds(model.lowered, model.session, given)
    schedules = candidates(block, durations, workers)
    priced = {name: (schedule, predicted(block, schedule, durations, {})) for name, schedule in schedules.items()}
    others = programs_of(model.lowered, priced, Kernels())
    sequential = Candidate(SEQUENTIAL, model.lowered, model.session, sum(durations), 1)
    kept = choose([sequential, *others], given, budget).kept
    if kept is sequential:
        return None
    return CompiledModel(model.graph, kept.lowered, kept.session, model.report), write_queues(schedules[kept.name])


def with_queues(model: CompiledModel, texts: Sequence[str]) -> CompiledModel:
    """The model on several workers, as a text says.

    Raises:
        ArgumentError: the text is no schedule.
        GraphError: it does not fit the steps of this program.
        BuildError: a kernel of a part cannot be generated on this host.
    """
    lowered = apply_schedule(model.lowered, read_queues(texts))
    built = generate(lowered.program)
    if built.failed:
        raise BuildError(
            f"{len(built.failed)} kernels of parts could not be generated: {next(iter(built.failed.values()))}",
            fix="schedule the model again on this host",
        )
    session = load(lowered.program, library_of(lowered.program, built)).session()
    return CompiledModel(model.graph, lowered, session, model.report)


def _text(item: Item) -> str:
    return f"{item.step}:{item.part}/{item.parts}{'r' * item.rows}" if isinstance(item, Part) else str(item)


def _item(word: str, texts: Sequence[str]) -> Item:
    match = _ITEM.fullmatch(word)
    if match is None:
        raise ArgumentError("queues", list(texts), expected="numbers of steps, and parts like 3:0/2, for each worker")
    step, part, parts, rows = match.groups()
    return int(step) if part is None else Part(int(step), int(part), int(parts), bool(rows))
