"""What stages cost: their groups run together in the machine, on data of their own."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence

import torch

from taut.codegen import Recipe
from taut.compile._block import Block, CopyStep, KernelStep, Step
from taut.compile._dependences import accesses
from taut.compile._parallel import Item, Part, Stages, apply_schedule, schedulable, threads_of
from taut.compile._program import Lowered
from taut.compile._split import can_split, split_step
from taut.compile._views import Buffer, View
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._undisturbed import TimedSession
from taut.errors import ArgumentError

Groups = tuple[tuple[Item, ...], ...]
"""The groups of a stage that run at the same time."""

_COLD_BYTES = 32 << 20
_MOST_COPIES = 8
_FEWEST_COPIES = 3
_FEWEST, _MOST = 4, 40
_LONGEST = 0.3
"""Seconds to look for blocks in which every thread has a core."""
_AGREEMENT = 1.02
_LINE = 16  # elements of at most 4 bytes that share a line of the cache, or more


class StageCosts:
    """What stages cost, measured once each.

    A stage is repeated on copies of its data, so that weights come from the level of the cache where they lie in the
    whole program and a barrier is paid for each. Where several workers take part, each has just written its share of
    what the stage reads, as in a program: data that comes from another core costs most where cores are far apart. What
    the writing takes alone is subtracted. The figure is the least of a few blocks in which every thread had a core,
    more where they disagree.

    Args:
        lowered: a sequential program with static sizes.
        workers: threads.
        kernels: to take kernels from; those that a stage lacks are added.

    Attributes:
        workers: threads.
        steps: numbers of the steps that can be placed.
        kernels: of the program and of its steps in parts.
        measured: seconds by stages; None where no block had a core for every thread.

    Raises:
        ArgumentError: sizes are not static.
    """

    def __init__(self, lowered: Lowered, workers: int, kernels: Kernels) -> None:
        if lowered.graph.symbols:
            raise ArgumentError(
                "model",
                f"{', '.join(lowered.graph.symbols)} may vary",
                expected="a program of fixed sizes, since a schedule is made for the times of its steps",
                fix="compile without dynamic shapes",
            )
        self._lowered = lowered
        self.workers = workers
        self.steps = schedulable(lowered.blocks[0])
        self.kernels = kernels
        self.measured: dict[tuple[Groups, ...], float | None] = {}
        constants = {id(tensor): tensor.nbytes for tensor in lowered.program.constants}
        self._resident = min(sum(constants.values()), _COLD_BYTES)

    def generate(self) -> None:
        """Generate the kernels of all steps and their parts, rather than each when it is needed."""
        self.kernels.add(self._lowered.recipes())
        self.kernels.add({key: recipe for step in self.steps for key, recipe in self._parts(step).items()})

    def can_split(self, step: int) -> bool:
        """Whether a step can run on all workers, and there are kernels for its parts."""
        return can_split(self._lowered.blocks[0].steps[step], self.workers) and self.kernels.has(self._parts(step))

    def _parts(self, step: int) -> dict[str, Recipe]:
        """The kernels of the parts of a step, by key; none where it cannot be split."""
        one = self._lowered.blocks[0].steps[step]
        return recipes_of(split_step(one, self.workers)) if can_split(one, self.workers) else {}

    def concurrent(self, groups: Sequence[Sequence[int]]) -> float | None:
        """Seconds of a stage whose groups run at the same time, each in order; None as for `stages`."""
        return self.stages([tuple(map(tuple, groups))])

    def split(self, steps: Sequence[int], chosen: Sequence[int] | None = None) -> float | None:
        """Seconds of steps one after the other, those chosen, or else all that can be split, on all workers.

        None as for `stages`.
        """
        wanted = [step for step in steps if self.can_split(step)] if chosen is None else chosen
        return self.stages(split_stages(steps, dict.fromkeys(wanted, self.workers)))

    def sequential(self, steps: Sequence[int]) -> float:
        """Seconds of steps one after the other on one worker."""
        seconds = self.stages([(tuple(steps),)])
        assert seconds is not None
        return seconds

    def stages(self, stages: Sequence[Groups]) -> float | None:
        """Seconds of stages one after the other, with a barrier after each.

        None where other processes left no block in which every thread had a core; of one thread the least of all blocks
        still tells something then.
        """
        key = tuple(tuple(sorted(stage, key=str)) for stage in stages)
        if key not in self.measured:
            self.measured[key] = self._measure(stages)
        return self.measured[key]

    def _measure(self, stages: Sequence[Groups]) -> float | None:
        copies = self._copies(stages)
        threads = threads_of(Stages(tuple(stages), self.workers))
        made = _alone(self._lowered, stages, copies, self.workers, written=threads > 1)
        workers = self.workers if threads > 1 else 1
        timed = [TimedSession(self.kernels.session(apply_schedule(*one)), (), workers) for one in made]
        end = time.perf_counter() + _LONGEST
        for _ in range(_MOST):
            for one in timed:
                one.time()
            enough = all(len(one.undisturbed) >= _FEWEST and _agree(one.undisturbed) for one in timed)
            if enough or time.perf_counter() > end:
                break
        if threads > 1 and not all(one.undisturbed for one in timed):
            return None
        whole, *writing = (min(one.times()) for one in timed)
        seconds = (whole - sum(writing)) / copies
        return seconds if seconds > 0 else None

    def _copies(self, stages: Sequence[Groups]) -> int:
        block = self._lowered.blocks[0]
        own = {
            buffer: buffer.constant.nbytes
            for step in {_step(item) for stage in stages for group in stage for item in group}
            for buffer, _ in accesses(block.steps[step])
            if buffer.constant is not None
        }
        size = sum(own.values())
        return max(_FEWEST_COPIES, min(_MOST_COPIES, -(-self._resident // size))) if size else _FEWEST_COPIES


def _agree(times: Sequence[float]) -> bool:
    return sorted(times)[1] <= _AGREEMENT * min(times)


def split_stages(steps: Sequence[int], parts: Mapping[int, int]) -> list[Groups]:
    """Steps one after the other, those in `parts` in so many parts at the same time; whole neighbours stay together."""
    made: list[Groups] = []
    whole: list[int] = []
    for step in [*steps, None]:
        if step is not None and step not in parts:
            whole.append(step)
            continue
        if whole:
            made.append((tuple(whole),))
            whole = []
        if step is not None:
            made.append(tuple((Part(step, part, parts[step]),) for part in range(parts[step])))
    return made


def recipes_of(steps: Iterable[Step]) -> dict[str, Recipe]:
    """The kernels that steps need generated, by key."""
    kernels = (step.kernel for step in steps if isinstance(step, KernelStep))
    return {kernel.key: kernel for kernel in kernels if isinstance(kernel, Recipe)}


def _step(item: Item) -> int:
    return item.step if isinstance(item, Part) else item


def _alone(
    lowered: Lowered, stages: Sequence[Groups], copies: int, workers: int, *, written: bool
) -> list[tuple[Lowered, Stages]]:
    """A program without arguments that runs copies of stages one after the other, and its schedule.

    Args:
        lowered: the program of the stages.
        stages: of it.
        copies: how many.
        workers: threads.
        written: whether all workers write what the stages read before each copy; otherwise that is constant. A second
            program then does nothing but that, unless the stages read nothing.
    """
    block = lowered.blocks[0]
    steps = sorted({_step(item) for stage in stages for group in stage for item in group})
    place = {step: number for number, step in enumerate(steps)}
    outputs = {buffer for step in steps for buffer, (_, writes) in accesses(block.steps[step]) if writes}
    whole, writing = _Repeated(workers), _Repeated(workers)
    sources: dict[Buffer, Buffer] = {}
    for copy in range(copies):
        moved = _Moved(outputs, sources if written else None, fresh=copy > 0)
        own = [moved.step(block.steps[step]) for step in steps]  # pyright: ignore[reportArgumentType]
        for repeated in (whole, writing):
            repeated.add_writing(moved.read)
        whole.add(own, stages, place)
    return [one.program(lowered) for one in (whole, writing) if one.steps]


class _Repeated:
    """Steps and stages of a program that is put together."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.steps: list[KernelStep | CopyStep] = []
        self._stages: list[Groups] = []

    def add_writing(self, read: Mapping[Buffer, Buffer]) -> None:
        """A stage in which each worker copies its share of every source to its target."""
        groups = []
        for worker in range(self._workers):
            shares = (_share(source, target, worker, self._workers) for target, source in read.items())
            own = [share for share in shares if share is not None]
            if own:
                groups.append(tuple(range(len(self.steps), len(self.steps) + len(own))))
                self.steps += own
        if groups:
            self._stages.append(tuple(groups))

    def add(self, steps: Sequence[KernelStep | CopyStep], stages: Sequence[Groups], place: Mapping[int, int]) -> None:
        """Stages with steps of their own; `place` has where among these each is."""
        first = len(self.steps)
        self.steps += steps

        def renamed(item: Item) -> Item:
            if isinstance(item, Part):
                return item._replace(step=first + place[item.step])
            return first + place[item]

        self._stages += [tuple(tuple(map(renamed, group)) for group in stage) for stage in stages]

    def program(self, lowered: Lowered) -> tuple[Lowered, Stages]:
        """With its schedule."""
        alone = Block("stage", (), tuple(self.steps), (), ())
        graph = dataclasses.replace(lowered.graph, inputs=(), outputs=(), guards=(), symbols={})
        part = dataclasses.replace(lowered, graph=graph, blocks=(alone,), plans=(lowered.plans[0],))
        return part, Stages(tuple(self._stages), self._workers)


def _share(source: Buffer, target: Buffer, worker: int, workers: int) -> CopyStep | None:
    """The copy of a worker's share of a buffer, in whole lines of the cache, if it has any."""
    elements = int(source.elements)
    start, end = (elements * one // workers // _LINE * _LINE for one in (worker, worker + 1))
    size = (elements if worker == workers - 1 else end) - start
    return CopyStep(View(source, (size,), (1,), start), View(target, (size,), (1,), start)) if size else None


class _Moved:
    """Steps on buffers of their own; `fresh` ones copy constants.

    Attributes:
        read: what the steps read of others, with the constants to copy to it; those are shared through `sources`. Where
            that is None they read constants.
    """

    def __init__(self, written: set[Buffer], sources: dict[Buffer, Buffer] | None, *, fresh: bool) -> None:
        self._written = written
        self._sources = sources
        self._fresh = fresh
        self._buffers: dict[Buffer, Buffer] = {}
        self.read: dict[Buffer, Buffer] = {}

    def step(self, step: KernelStep | CopyStep) -> KernelStep | CopyStep:
        if isinstance(step, CopyStep):
            return dataclasses.replace(step, source=self._view(step.source), target=self._view(step.target))
        inputs, outputs = (tuple(map(self._view, views)) for views in (step.inputs, step.outputs))
        return dataclasses.replace(step, inputs=inputs, outputs=outputs)

    def _view(self, old: View) -> View:
        if old.buffer not in self._buffers:
            self._buffers[old.buffer] = self._buffer(old.buffer)
        return View(self._buffers[old.buffer], old.sizes, old.strides, old.offset)

    def _buffer(self, old: Buffer) -> Buffer:
        if old.constant is not None:
            constant = old.constant.clone() if self._fresh else old.constant
            return Buffer("constant", old.dtype, old.elements, constant, old.name)
        if old in self._written:
            return Buffer("arena", old.dtype, old.elements, name=old.name)
        if self._sources is None:
            return _random(old)
        if old not in self._sources:
            self._sources[old] = _random(old)
        target = Buffer("arena", old.dtype, old.elements, name=old.name)
        self.read[target] = self._sources[old]
        return target


def _random(old: Buffer) -> Buffer:
    """A constant in place of what the program computes."""
    size = int(old.elements)
    values = torch.randn(size).to(old.dtype) if old.dtype.is_floating_point else torch.zeros(size, dtype=old.dtype)
    return Buffer("constant", old.dtype, old.elements, values, old.name)
