"""Models on streams: whatever they return or hold, in calls of any sizes, and what cannot be captured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from stream_trace import WatchedStreams
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from taut.compile.interop import greedy, list_schedule
from taut.compile.scheduling import (
    StreamedModel,
    stream_operators,
    unstaged_program,
)
from taut.errors import GraphError, GuardError
from taut.graph import Graph, Interpreter, capture

CHANNELS = 4


pytestmark = pytest.mark.usefixtures("one_thread")


class Awkward(nn.Module):
    """Buffers, batch normalisation, writes in place, views of views, several results."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.register_buffer("shift", torch.linspace(0, 1, CHANNELS).reshape(-1, 1, 1))
        self.layers = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        first, second = self.layers
        a = first(self.norm(x))
        a += self.shift
        torch.relu_(a)
        b = second(y).transpose(2, 3)
        left, right = b.chunk(2, 1)
        joined = torch.cat([right, left.mul(2)], 1)
        joined[:, 0] = 1.0
        return {
            "sum": self.drop(a + joined),
            "view": b[:, 1:],
            "given": x,
            "kept": self.shift,
            "pair": (left, x[:, :2]),
        }


@functools.cache
def awkward() -> tuple[Graph, tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    inputs = torch.randn(2, CHANNELS, 5, 5), torch.randn(2, CHANNELS, 5, 5)
    return capture(Awkward().eval(), inputs), inputs


def leaves(tree: Any) -> list[Tensor]:
    return pytree.tree_leaves(tree)


@pytest.mark.parametrize("kind", ["sequential", "greedy", "list"])
def test_views_buffers_writes_in_place_and_several_results(kind: str) -> None:
    graph, (x, y) = awkward()
    operators = stream_operators(graph).graph
    seconds = [[1.0, float("inf"), float("inf")]] * len(operators)
    chosen: dict[str, Any] = {
        "sequential": None,
        "greedy": greedy(operators, lambda stages: [1.0] * len(stages)),
        "list": unstaged_program(operators, list_schedule(operators, seconds)),
    }
    watched = WatchedStreams()
    model = StreamedModel(graph, chosen[kind], device=watched)
    expected = Interpreter(graph)(x, y)
    before = x.clone(), y.clone()
    for _ in range(2):
        found = model(x, y)
        watched.end()
        assert not any(leaf.requires_grad or leaf.is_inference() for leaf in leaves(found))
        assert watched.races == []
        assert found.keys() == expected.keys()
        for own, wanted in zip(leaves(found), leaves(expected), strict=True):
            assert torch.equal(own, wanted)
            own.fill_(7.0)  # results are the caller's own: neither inputs, weights nor the next call change
        assert torch.equal(x, before[0])
        assert torch.equal(y, before[1])


def test_random_numbers_are_drawn_in_the_same_order_by_every_schedule() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a = torch.rand_like(x) + x
            b = torch.relu(torch.randn_like(x) - x)
            return a * torch.bernoulli(torch.sigmoid(b))

    x = torch.randn(3, 5)
    graph = capture(Noisy(), (x,))
    operators = stream_operators(graph).graph
    drawing = [number for number, operator in enumerate(operators.operators) if "rand" in operator.kind]
    assert len(drawing) == 2
    assert (drawing[0], drawing[1]) in operators.edges
    results = []
    for stages in (None, greedy(operators, lambda stages: [1.0] * len(stages))):
        model = StreamedModel(graph, stages)
        model(x)
        torch.manual_seed(5)
        results.append(model(x))
    assert torch.equal(*results)


class Counting(WatchedStreams):
    captures = 0

    def capture(self, issue: Callable[[], Any]) -> Callable[[], Any]:
        self.captures += 1
        return super().capture(issue)


def test_each_set_of_sizes_is_captured_once() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).eval()
    module(torch.randn(2, 3, 6, 6))
    graph = capture(module, (torch.randn(2, 3, 6, 6),), dynamic_shapes=({0: Dim("batch", max=64)},))
    streams = Counting()
    model = StreamedModel(graph, device=streams)
    for batch in (2, 3, 2, 3, 4):
        x = torch.randn(batch, 3, 6, 6)
        torch.testing.assert_close(model(x), module(x).detach())
    assert streams.captures == 3
    for batch in range(5, 13):
        model(torch.randn(batch, 3, 6, 6))
    model(torch.randn(12, 3, 6, 6))
    assert streams.captures == 11
    model(torch.randn(2, 3, 6, 6))  # forgotten: it was not among the last eight
    assert streams.captures == 12
    with pytest.raises(GuardError, match="dimension 2 is 7"):
        model(torch.randn(2, 3, 7, 6))


def test_calls_inside_and_outside_of_inference_mode_share_a_capture() -> None:
    graph, inputs = awkward()
    model, expected = StreamedModel(graph), Interpreter(graph)(*inputs)
    with torch.inference_mode():
        first = model(*inputs)
    for found in (first, model(*inputs)):
        assert all(map(torch.equal, leaves(found), leaves(expected)))


def test_autocast_around_a_call_changes_nothing() -> None:
    graph, inputs = awkward()
    model = StreamedModel(graph)
    expected = leaves(model(*inputs))
    with torch.autocast("cpu"):
        found = leaves(model(*inputs))
    assert [leaf.dtype for leaf in found] == [leaf.dtype for leaf in expected]
    assert all(map(torch.equal, found, expected))


def test_what_does_not_fit_is_a_guard_error() -> None:
    graph, (x, y) = awkward()
    model = StreamedModel(graph)
    with pytest.raises(GuardError, match="dimension 0 is 1"):
        model(x[:1], y)
    with pytest.raises(GuardError, match="dtype"):
        model(x.double(), y)
    with pytest.raises(GuardError, match="missing"):
        model(x)
    with pytest.raises(GuardError, match="is on meta"):
        model(x.to("meta"), y)


@pytest.mark.parametrize(
    ("forward", "word"),
    [
        (lambda x: x[torch.nonzero(x)[:, 0]], "size of its result depends on data"),
        (lambda x: torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,)), "decided by the host"),
        (lambda x: x * x.sum().item(), "the host reads a value"),
    ],
)
def test_what_the_host_would_have_to_wait_for_is_refused(forward: Callable[[Tensor], Tensor], word: str) -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    graph = capture(Deciding(), (torch.randn(6),))
    with pytest.raises(GraphError, match=word) as raised:
        stream_operators(graph)
    assert "taut.compile" in str(raised.value)
