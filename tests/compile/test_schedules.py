"""Programs on several workers: whatever valid schedule they keep to, the bits are those of the sequential program."""

from __future__ import annotations

import functools
import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("halide", reason="the extra compile is not installed")

from taut.codegen import Built, Operand, build
from taut.compile import CompiledModel, compile_model
from taut.compile._block import KernelStep, Step
from taut.compile._dependences import accesses, dependences, disjoint
from taut.compile._generate import generate, library_of
from taut.compile._memory import MemoryPlan
from taut.compile._parallel import (
    Item,
    Part,
    Queues,
    Schedule,
    Split,
    Stages,
    apply_schedule,
    lockstep,
    longest_path_first,
    schedulable,
    threads_of,
)
from taut.compile._program import Lowered
from taut.compile._split import can_split, split_step
from taut.compile._views import Buffer, View
from taut.compile.scheduling._candidates import bound, candidates
from taut.compile.scheduling._kernels import Kernels
from taut.compile.scheduling._plan import programs_of
from taut.errors import ArgumentError, GraphError
from taut.runtime import Opcode, Session, load

CHANNELS = 32


class RandomNetwork(torch.nn.Module):
    """Convolutions and sums in a random graph; two results are joined."""

    def __init__(self, seed: int, count: int = 7) -> None:
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.inputs = [tuple(draw.randrange(node + 1) for _ in range(2)) for node in range(count)]
        self.layers = torch.nn.ModuleList(
            torch.nn.Conv2d(CHANNELS, CHANNELS, *draw.choice([(1, 1, 0), (3, 1, 1)])) for _ in range(count)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for (a, b), layer in zip(self.inputs, self.layers, strict=True):
            values.append(layer(torch.relu(values[a]) + values[b]))
        return torch.cat(values[-3:], 1)


class Halves(torch.nn.Module):
    """A depthwise convolution of a sum of two halves of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.scale = torch.nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, 1)
        return self.layer(torch.relu(first + second * self.scale))


@functools.cache
def compiled(seed: int) -> CompiledModel:
    model = RandomNetwork(seed).eval()
    return compile_model(model, (torch.randn(1, CHANNELS, 4, 4),))


@functools.cache
def kernels(seed: int) -> Built:
    """All kernels that a schedule of the network may need."""
    recipes = {}
    for step in compiled(seed).lowered.blocks[0].steps:
        for parts in (1, 2):
            if isinstance(step, KernelStep) and can_split(step, parts):
                recipes |= {piece.kernel.key: piece.kernel for piece in split_step(step, parts)}  # pyright: ignore
    return build(list(recipes.values()))


def session(lowered: Lowered, built: Built, **options: bool) -> Session:
    return load(lowered.program, library_of(lowered.program, built)).session(**options)  # pyright: ignore


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, Schedule]:
    """A random network with a random schedule that its dependences allow."""
    seed = draw(st.integers(0, 1))
    block = compiled(seed).lowered.blocks[0]
    needed = dependences(block)
    left = set(schedulable(block))
    order: list[list[Item]] = []
    done: set[int] = set(range(len(block.steps))) - left
    while left:
        step = draw(st.sampled_from(sorted(step for step in left if needed[step] <= done)))
        left.remove(step)
        done.add(step)
        parts = draw(st.sampled_from([parts for parts in (1, 2) if can_split(block.steps[step], parts)]))
        order.append([step] if parts == 1 else [Part(step, part, parts) for part in range(parts)])
    items = [item for group in order for item in group]
    workers = draw(st.integers(1, 3))
    if draw(st.booleans()):
        queues: list[list[Item]] = [[] for _ in range(workers)]
        for item in items:
            queues[draw(st.integers(0, workers - 1))].append(item)
        return seed, Queues(tuple(map(tuple, queues)))
    return seed, Stages(tuple(_stages(draw, needed, items)), workers)


def _stages(draw: st.DrawFn, needed: list[set[int]], items: list[Item]) -> list[tuple[tuple[Item, ...], ...]]:
    """Items in their order, cut into stages; in a stage, those that depend on each other are in one group."""
    stages: list[tuple[tuple[Item, ...], ...]] = []
    groups: list[list[Item]] = []
    for item in items:
        step = item.step if isinstance(item, Part) else item
        near = [
            group
            for group in groups
            if any((other.step if isinstance(other, Part) else other) in needed[step] for other in group)
        ]
        if len(near) > 1 or draw(st.integers(0, 3)) == 0:
            stages.append(tuple(map(tuple, groups)))
            groups, near = [], []
        if near:
            near[0].append(item)
        else:
            groups.append([item])
    return [stage for stage in [*stages, tuple(map(tuple, groups))] if stage]


@given(schedules())
@settings(max_examples=25)
def test_every_valid_schedule_gives_the_same_bits(drawn: tuple[int, Schedule]) -> None:
    seed, schedule = drawn
    model = compiled(seed)
    x = torch.randn(1, CHANNELS, 4, 4)
    expected = model.session(x)[0]
    run = session(apply_schedule(model.lowered, schedule), kernels(seed), poison=True)
    for _ in range(3):
        assert torch.equal(run(x)[0], expected)


@given(schedules())
@settings(max_examples=25)
def test_steps_that_may_run_at_once_share_no_memory(drawn: tuple[int, Schedule]) -> None:
    seed, schedule = drawn
    lowered = apply_schedule(compiled(seed).lowered, schedule)
    block, plan = lowered.blocks[0], lowered.plans[0]
    pc = lowered.instructions[0]
    words = next(item for item in lowered.program.functions[0].instructions if item[0] == Opcode.PARALLEL)
    tasks = _parsed(words)
    start = pc.index(lowered.program.functions[0].instructions.index(words) + 1)
    steps = list(itertools.accumulate((length for length, _ in tasks), initial=start))
    reach: list[set[int]] = []
    for _, after in tasks:
        reach.append(set(after).union(*(reach[other] for other in after)))
    for later, earlier in itertools.combinations(range(len(tasks) - 1, -1, -1), 2):
        if earlier in reach[later]:
            continue
        for a, b in itertools.product(range(*steps[later : later + 2]), range(*steps[earlier : earlier + 2])):
            assert not _collide(_touched(block.steps[a], plan), _touched(block.steps[b], plan))


def _parsed(words: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """Of each task the number of instructions, and the tasks before."""
    rest = iter(words[2:])
    found = []
    for _ in range(words[1]):
        length, _, before = next(rest), next(rest), next(rest)
        found.append((length, tuple(next(rest) for _ in range(before))))
    return found


def _touched(step: Step, plan: MemoryPlan) -> tuple[set[object], set[object]]:
    """Words of memory that a step reads, and those that it writes."""
    found: tuple[set[object], set[object]] = set(), set()
    for buffer, (view, written) in accesses(step):
        if buffer.kind == "constant":
            continue
        assert view is not None
        owner, start = ("arena", int(plan.offsets[buffer]) // 4) if buffer in plan.offsets else (buffer, 0)
        for index in itertools.product(*(range(int(size)) for size in view.sizes)):
            place = int(view.offset) + sum(i * int(stride) for i, stride in zip(index, view.strides, strict=True))
            found[written].add((owner, start + place))
    return found


def _collide(a: tuple[set[object], set[object]], b: tuple[set[object], set[object]]) -> bool:
    return bool(a[1] & (b[0] | b[1]) or b[1] & a[0])


@st.composite
def boxes(draw: st.DrawFn) -> list[View]:
    """Two parts of one matrix or image, or views with any strides."""
    buffer = Buffer("arena", torch.float32, 1000)
    if draw(st.booleans()):
        sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
        strides = list(itertools.accumulate([1, *sizes[:0:-1]], lambda a, b: a * b))[::-1]
        found = []
        for _ in range(2):
            view = View(buffer, tuple(sizes), tuple(strides))
            for axis, size in enumerate(sizes):
                start = draw(st.integers(0, size - 1))
                view = view.narrow(axis, start, draw(st.integers(1, size - start)))
            found.append(view)
        return found
    some = st.tuples(st.integers(1, 4), st.integers(0, 9))
    dims = [draw(st.lists(some, min_size=1, max_size=3)) for _ in range(2)]
    return [
        View(buffer, tuple(size for size, _ in own), tuple(stride for _, stride in own), draw(st.integers(0, 20)))
        for own in dims
    ]


@given(boxes())
@settings(max_examples=300)
def test_disjoint_views_share_no_element(views: list[View]) -> None:
    elements = [
        {
            int(view.offset) + sum(i * int(stride) for i, stride in zip(index, view.strides, strict=True))
            for index in itertools.product(*(range(int(size)) for size in view.sizes))
        }
        for view in views
    ]
    if disjoint(*views):
        assert not elements[0] & elements[1]


def test_column_blocks_of_a_matrix_are_disjoint() -> None:
    whole = View(Buffer("arena", torch.float32, 60), (6, 10), (10, 1))
    assert disjoint(whole.narrow(1, 0, 4), whole.narrow(1, 4, 6))
    assert disjoint(whole.narrow(1, 4, 6), whole.narrow(1, 0, 4))
    assert disjoint(whole.narrow(0, 0, 3), whole.narrow(0, 3, 3))
    assert not disjoint(whole.narrow(1, 0, 5), whole.narrow(1, 4, 6))


def test_channels_of_pixels_are_disjoint_in_whatever_dimensions_the_pixels_lie() -> None:
    buffer = Buffer("arena", torch.float32, 60)
    image, line = View(buffer, (2, 3, 10), (30, 10, 1)), View(buffer, (6, 10), (10, 1))
    assert disjoint(image.narrow(2, 0, 4), line.narrow(1, 4, 6))
    assert not disjoint(image.narrow(2, 0, 5), line.narrow(1, 4, 6))
    images = Buffer("arena", torch.float32, 120)
    half_of_each = View(images, (2, 3, 4), (60, 10, 1))
    assert disjoint(half_of_each, View(images, (2, 2, 3, 6), (60, 30, 10, 1), 4))
    assert not disjoint(half_of_each, View(images, (2, 2, 3, 6), (60, 30, 10, 1), 3))


class Joined(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Conv2d(8, 16, 1), torch.nn.Conv2d(8, 32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.a(x), self.b(x)], 1)


def test_slices_of_a_joined_result_do_not_wait_for_each_other() -> None:
    block = compile_model(Joined().eval(), (torch.randn(1, 8, 4, 4),)).lowered.blocks[0]
    writers = [number for number, step in enumerate(block.steps) if "a" in step.label or "b" in step.label]
    first, second = writers[-2:]
    assert block.steps[first].outputs[0].buffer is block.steps[second].outputs[0].buffer  # pyright: ignore
    assert first not in dependences(block)[second]


class Shifted(torch.nn.Module):
    """Adds a constant that lies in the middle of another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.randn(5, 64)[3:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize(
    ("model", "x", "parts"),
    [
        (torch.nn.Linear(24, 40), torch.randn(9, 24), 3),
        (torch.nn.Conv2d(8, 80, 3, padding=1), torch.randn(1, 8, 5, 6), 2),
        (torch.nn.Conv2d(8, 16, 1), torch.randn(1, 8, 5, 6), 4),
        (torch.nn.Conv2d(8, 16, 3), torch.randn(3, 8, 5, 6), 3),
        (torch.nn.Conv2d(40, 40, 3, groups=40), torch.randn(1, 40, 5, 6), 2),
        (torch.nn.Conv2d(72, 72, 5, padding=2, groups=72), torch.randn(1, 72, 14, 14), 2),
        (torch.nn.AvgPool2d(3, 1, 1), torch.randn(1, 40, 5, 6), 3),
        (torch.nn.MaxPool2d(3, 2), torch.randn(1, 20, 9, 9), 2),
        (torch.nn.GELU(), torch.randn(5, 6).t(), 1),
        (torch.nn.GELU(), torch.randn(50), 3),
        (torch.nn.Softmax(-1), torch.randn(1, 5, 6), 3),
        (Shifted(), torch.randn(2, 1), 3),
    ],
)
def test_parts_make_up_the_whole(model: torch.nn.Module, x: torch.Tensor, parts: int) -> None:
    made = compile_model(model.eval(), (x,))
    steps = schedulable(made.lowered.blocks[0])
    block = made.lowered.blocks[0]
    split = max(steps, key=lambda step: can_split(block.steps[step], parts))
    assert can_split(block.steps[split], parts)
    stages = tuple(
        tuple((Part(step, part, parts),) for part in range(parts)) if step == split else ((step,),) for step in steps
    )
    lowered = apply_schedule(made.lowered, Stages(stages))
    run = session(lowered, generate(lowered.program), poison=True)
    assert torch.equal(run(x)[0], made.session(x)[0])


def test_channels_of_what_is_computed_before_a_depthwise_convolution_make_up_the_whole() -> None:
    x = torch.randn(1, 80, 9, 7)
    made = compile_model(Halves(40).eval(), (x,))
    steps = schedulable(made.lowered.blocks[0])
    *before, last = steps
    assert len(made.lowered.blocks[0].steps[last].inputs) == 5  # pyright: ignore - three images, weights, bias
    stages = (*(((step,),) for step in before), tuple((Part(last, part, 2),) for part in range(2)))
    lowered = apply_schedule(made.lowered, Stages(stages))
    run = session(lowered, generate(lowered.program), poison=True)
    assert torch.equal(run(x)[0], made.session(x)[0])


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (torch.nn.Conv2d(8, 40, 3, padding=1), (1, 8, 14, 9)),
        (torch.nn.Conv2d(8, 16, 5, padding=2), (1, 8, 35, 7)),
        (torch.nn.Conv2d(8, 16, 3, stride=2, padding=2, dilation=2), (1, 8, 17, 9)),
        (torch.nn.Conv2d(3, 16, 7, stride=2, padding=3), (1, 3, 32, 32)),
        (torch.nn.Conv2d(24, 40, 1), (1, 24, 7, 7)),
        (torch.nn.Conv2d(24, 40, 1, stride=2), (1, 24, 9, 9)),
        (torch.nn.Conv2d(40, 40, 3, padding=1, groups=40), (1, 40, 7, 6)),
        (torch.nn.Conv2d(20, 20, 5, padding=2, stride=2, groups=20), (1, 20, 13, 12)),
        (Halves(40), (1, 80, 13, 12)),
        (torch.nn.AvgPool2d(3, 1, 1), (1, 24, 9, 9)),
        (torch.nn.AvgPool2d(3, 2, 1, count_include_pad=False), (1, 24, 9, 9)),
        (torch.nn.MaxPool2d(3, 2), (1, 24, 15, 9)),
        (torch.nn.Conv2d(8, 16, 3, padding=1), (3, 8, 5, 6)),
    ],
)
def test_rows_make_up_the_whole(model: torch.nn.Module, shape: tuple[int, ...], parts: int) -> None:
    x = torch.randn(shape)
    made = compile_model(torch.nn.Sequential(torch.nn.ReLU(), model).eval(), (x,))
    block = made.lowered.blocks[0]
    steps = [step for step in schedulable(block) if can_split(block.steps[step], parts, rows=True)]
    assert len(steps) == len(schedulable(block))
    lowered = apply_schedule(
        made.lowered,
        Queues(tuple(tuple(Part(step, part, parts, rows=True) for step in steps) for part in range(parts))),
    )
    run = session(lowered, generate(lowered.program), poison=True)
    torch.testing.assert_close(run(x)[0], made.session(x)[0], rtol=1e-5, atol=1e-6)


def test_a_part_that_would_see_no_row_is_none() -> None:
    block = compile_model(torch.nn.Conv2d(8, 16, 1, padding=(3, 0)).eval(), (torch.randn(1, 8, 2, 6),)).lowered.blocks[
        0
    ]
    last = block.steps[-1]
    assert can_split(last, 2, rows=True)
    assert not can_split(last, 8, rows=True)


def test_parts_of_what_has_no_parts_are_refused() -> None:
    step = compiled(0).lowered.blocks[0].steps[0]
    with pytest.raises(ArgumentError, match="parts"):
        split_step(step, 10_000)


def test_contradictory_schedules_are_refused() -> None:
    model = compiled(0)
    steps = schedulable(model.lowered.blocks[0])
    with pytest.raises(GraphError, match="lacks step"):
        apply_schedule(model.lowered, Queues((tuple(steps[1:]),)))
    with pytest.raises(GraphError, match="has step 99"):
        apply_schedule(model.lowered, Queues(((*steps, 99),)))
    with pytest.raises(GraphError, match="has step 0 as"):
        apply_schedule(model.lowered, Queues(((steps[0], *steps),)))
    with pytest.raises(GraphError, match="depends on it"):
        apply_schedule(model.lowered, Queues((tuple(reversed(steps)),)))
    with pytest.raises(GraphError, match="before step"):
        apply_schedule(model.lowered, Stages(((tuple(reversed(steps)),),)))


@given(st.integers(0, 1), st.integers(1, 4), st.randoms())
@settings(max_examples=20)
def test_list_schedules_are_valid_and_no_better_than_the_bound(seed: int, workers: int, draw: random.Random) -> None:
    lowered = compiled(seed).lowered
    block = lowered.blocks[0]
    durations = [draw.uniform(0, 10) for _ in block.steps]
    queues = longest_path_first(block, durations, workers)
    apply_schedule(lowered, queues)
    own = [[step for step in queue if isinstance(step, int)] for queue in queues.workers]
    needed = dependences(block)
    end: dict[int, float] = {}
    position = [0] * workers
    free = [0.0] * workers
    while len(end) < len(block.steps):
        for worker, queue in enumerate(own):
            while position[worker] < len(queue) and needed[queue[position[worker]]] <= end.keys():
                step = queue[position[worker]]
                free[worker] = max([free[worker], *(end[other] for other in needed[step])]) + durations[step]
                end[step] = free[worker]
                position[worker] += 1
    least = max(bound(block, durations, {}, workers))
    assert least - 1e-9 <= max(end.values()) <= 2 * least + 1e-9


@pytest.mark.parametrize(
    ("schedule", "threads"),
    [
        (Queues(()), 1),
        (Queues(((0, 1), ())), 1),
        (Queues(((), (0,))), 2),
        (Stages((((0,),), ((1, 2),)), 2), 1),
        (Stages((((0,),), ((1,), (2,), (3,))), 2), 2),
        (Stages((((0,),), ((1,), (2,), (3,))), 4), 3),
    ],
)
def test_threads_are_those_that_have_steps(schedule: Schedule, threads: int) -> None:
    assert threads_of(schedule) == threads


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_in_lockstep_each_worker_has_its_part_of_each_step(workers: int) -> None:
    model = compiled(0)
    block = model.lowered.blocks[0]
    parts = {
        step: Split(workers, rows=True)
        for step in schedulable(block)
        if workers > 1 and can_split(block.steps[step], workers, rows=True)
    }
    queues = lockstep(block, [1.0] * len(block.steps), workers, parts)
    for worker, queue in enumerate(queues.workers):
        assert [item.step for item in queue if isinstance(item, Part)] == list(parts)
        assert all(item.part == worker for item in queue if isinstance(item, Part))
    lowered = apply_schedule(model.lowered, queues)
    x = torch.randn(1, CHANNELS, 4, 4)
    run = session(lowered, generate(lowered.program), poison=True)
    torch.testing.assert_close(run(x)[0], model.session(x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_schedules_by_simple_rules_give_the_same_result(exact: bool) -> None:
    model = compiled(1)
    x = torch.randn(1, CHANNELS, 4, 4)
    block = model.lowered.blocks[0]
    made = candidates(block, [1e-5] * len(block.steps), 2, exact=exact)
    assert made.keys() >= {"list", "split", "intra"}
    expected = model.session(x)[0]
    for one in programs_of(model.lowered, {name: (schedule, 0.0) for name, schedule in made.items()}, Kernels()):
        if exact:
            assert torch.equal(one.session(x)[0], expected)
        torch.testing.assert_close(one.session(x)[0], expected, rtol=1e-5, atol=1e-5)


def test_recipes_of_parts_have_their_sizes() -> None:
    block = compiled(0).lowered.blocks[0]
    step = next(step for step in block.steps if isinstance(step, KernelStep) and can_split(step, 2))
    for piece in split_step(step, 2):
        assert isinstance(piece, KernelStep)
        declared = piece.kernel.operands  # pyright: ignore
        views = (*piece.inputs, *piece.outputs)
        assert all(
            isinstance(operand, Operand) and operand.shape == view.sizes
            for operand, view in zip(declared, views, strict=True)
        )
