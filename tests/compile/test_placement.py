"""Parts of a model on a second logical device: the same results, and no more transfers than needed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from block_reference import run
from fuzz_graphs import Case, differences, graphs
from hypothesis import given, settings
from test_fuzz import flat
from torch import Tensor, nn

import taut
from taut.compile import load, save
from taut.compile._block import Block, CopyStep, ItemStep, TransferStep
from taut.compile._placement import place
from taut.compile._prepare import prepare
from taut.compile._program import Lowered, lower
from taut.compile._views import Buffer, View, contiguous
from taut.errors import ArgumentError
from taut.graph import Graph, Interpreter, capture
from taut.runtime import Opcode, verify


class Pair(nn.Module):
    """Two branches that meet, and something of no module in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right, self.last = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last((self.left(h).tanh() + self.right(h)).softmax(-1))


class Sorted(nn.Module):
    """What runs on ATen."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sort(-1).values


class Choice(nn.Module):
    """A branch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), Sorted(), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.layers(x) * 2.0, lambda x: x.tanh(), (x,))


class Mixed(nn.Module):
    """Convolutions whose results are written side by side, what runs on ATen, and a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.sort, self.choice = Sorted(), Choice()

    def forward(self, x: Tensor) -> Tensor:
        return self.choice(self.sort(torch.cat([self.a(x), self.b(x)], 1).mean((2, 3))).relu())


@pytest.fixture(scope="module")
def pair() -> Graph:
    torch.manual_seed(0)
    return prepare(capture(Pair().eval(), (torch.randn(3, 8),), dynamic_shapes=({0: torch.export.Dim("n", min=2)},)))


@pytest.fixture(scope="module")
def mixed() -> Graph:
    torch.manual_seed(0)
    return prepare(capture(Mixed().eval(), (torch.randn(2, 3, 5, 5),)))


@pytest.mark.parametrize(
    ("devices", "transfers"),
    [
        ({}, 0),
        ({"first": 0}, 0),
        ({"left": 1}, 2),
        ({"first": 1}, 2),
        ({"left": 1, "right": 1}, 2),
        ({"left": 1, "right": 0}, 2),
        ({"left": 1, "right": 1, "last": 1}, 2),
        ({"": 1}, 2),
        ({"": 1, "right": 0}, 4),
        ({"first": 1, "left": 1, "right": 0, "last": 1}, 4),
    ],
)
def test_what_no_module_pins_goes_where_least_is_transferred(
    pair: Graph, devices: dict[str, int], transfers: int
) -> None:
    lowered = lower(pair, devices=devices)
    assert lowered.transfers == transfers
    code = [word[0] for function in lowered.program.functions for word in function.instructions]
    assert code.count(Opcode.TRANSFER) == transfers
    check_blocks(lowered, Interpreter(pair), torch.randn(5, 8))


def check_blocks(lowered: Lowered, reference: Interpreter, *inputs: Tensor) -> None:
    """Each step finds its operands on one device, and results are those of the graph."""
    verify(lowered.program)
    torch.testing.assert_close(run(lowered.blocks, inputs), flat(reference(*inputs)), rtol=1e-5, atol=1e-5)


def test_a_program_on_two_devices_computes_the_same(pair: Graph) -> None:
    compiled = taut.compile(pair, devices={"": 1, "right": 0})
    assert compiled.report.transfers == 4
    for size in (2, 3, 20):
        x = torch.randn(size, 8)
        torch.testing.assert_close(compiled(x), Interpreter(pair)(x), rtol=1e-5, atol=1e-5)


def test_weights_are_never_transferred(pair: Graph) -> None:
    moved = [step for step in lower(pair, devices={"": 1}).blocks[0].steps if isinstance(step, TransferStep)]
    assert [step.source.buffer.kind for step in moved] == ["input", "storage"]


MIXED = ({"a": 1}, {"a": 1, "b": 1}, {"sort": 1, "b": 1}, {"choice": 1}, {"": 1}, {"": 1, "choice": 0})


@pytest.mark.parametrize("devices", MIXED)
def test_joins_fallbacks_and_branches(mixed: Graph, devices: dict[str, int]) -> None:
    lowered = lower(mixed, devices=devices)
    assert lowered.transfers > 0
    for sign in (5.0, -5.0):
        check_blocks(lowered, Interpreter(mixed), torch.randn(2, 3, 5, 5) + sign)


def test_a_saved_program_keeps_its_devices(mixed: Graph, tmp_path: Path) -> None:
    compiled = taut.compile(mixed, devices={"b": 1, "choice": 1})
    loaded = load(save(compiled, tmp_path / "program"))
    x = torch.randn(2, 3, 5, 5)
    for program in (compiled, loaded):
        torch.testing.assert_close(program(x), Interpreter(mixed)(x), rtol=1e-5, atol=1e-5)


def test_the_devices_share_no_memory() -> None:
    x = torch.randn(3, 8)
    lowered = lower(prepare(capture(Pair().eval(), (x,))), devices={"left": 1, "last": 1})
    (plan,) = lowered.plans
    spans = [(int(plan.offsets[buffer]), int(buffer.elements) * 4, buffer.device) for buffer in plan.live]
    assert {device for _, _, device in spans} == {0, 1}
    for (start, size, device), (other, length, owner) in itertools.combinations(spans, 2):
        assert device == owner or start + size <= other or other + length <= start


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ({"middle": 1}, r"devices: got 'middle'.*path of a module.*first"),
        ({"left": 2}, r"devices: got 2.*0 to 1"),
        ({"left": True}, "True"),
    ],
)
def test_devices_and_modules_that_do_not_exist_are_refused(pair: Graph, devices: dict[str, int], said: str) -> None:
    with pytest.raises(ArgumentError, match=f"(?s){said}"):
        taut.compile(pair, devices=devices)


def pinned(case: Case, choose: Callable[[int], str]) -> Graph:
    """The graph with a module for each node."""
    nodes = [dataclasses.replace(node, module_path=choose(node.id)) for node in case.graph.nodes]
    return dataclasses.replace(case.graph, nodes=tuple(nodes))


@given(graphs(), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_random_graphs_mean_the_same_wherever_their_nodes_run(case: Case, random: Any) -> None:
    graph = pinned(case, lambda _: random.choice(("here", "there", "")))
    present = {node.module_path for node in graph.nodes if node.op not in ("input", "constant")}
    lowered = lower(prepare(graph), devices={path: int(path == "there") for path in present - {""}})
    verify(lowered.program)
    reference = Interpreter(case.graph)
    for seed, sizes in enumerate(case.sizes):
        inputs = case.inputs(sizes, seed)
        assert not differences(run(lowered.blocks, inputs), flat(reference(*inputs)), case.tolerances)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Copies between small tensors, some of them pinned, some into the memory of others."""
    given = contiguous(Buffer("input", torch.float32, 4), (4,))
    views: list[View] = [given]
    steps: list[CopyStep | ItemStep] = []
    for number in range(draw(st.integers(1, 7))):
        source = draw(st.sampled_from(views))
        parts = draw(st.sampled_from((1, 1, 2)))
        buffer = Buffer("arena", torch.float32, 4 * parts)
        pin = draw(st.sampled_from((None, None, 0, 1)))
        for part in range(parts):
            target = View(buffer, (4,), (1,), 4 * part)
            steps.append(CopyStep(draw(st.sampled_from(views)) if part else source, target, device=pin))
        views.append(View(buffer, (4,), (1,)))
        if draw(st.integers(0, 5)) == 0:
            steps.append(ItemStep(views[-1], f"n{number}"))
    results = draw(st.lists(st.sampled_from(views), max_size=2))
    return Block("main", (given,), tuple(steps), tuple(results), ())


def transfers(block: Block, devices: dict[Buffer, int]) -> int:
    """How many tensors are read on the other device than that of their memory."""
    read = {(view.buffer, 0) for view in block.results if isinstance(view, View)}
    for step in block.steps:
        if isinstance(step, CopyStep):
            read.add((step.source.buffer, devices[step.target.buffer]))
        elif isinstance(step, ItemStep):
            read.add((step.source.buffer, 0))
    return sum(devices.get(buffer, 0) != device for buffer, device in read)


@given(blocks())
def test_transfers_are_the_fewest_of_all_placements(block: Block) -> None:
    copies = [step for step in block.steps if isinstance(step, CopyStep)]
    choices = {step.target.buffer: (0, 1) if step.device is None else (step.device,) for step in copies}
    fewest = min(
        transfers(block, dict(zip(choices, chosen, strict=True))) for chosen in itertools.product(*choices.values())
    )
    placed = place(block)
    assert sum(isinstance(step, TransferStep) for step in placed.steps) == fewest
    for step in placed.steps:
        if isinstance(step, CopyStep):
            assert step.source.buffer.device == step.target.buffer.device == (step.device or 0)
