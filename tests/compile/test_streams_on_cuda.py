"""Streams of a real GPU: the same bits as in order, again and again, and times from its own clock."""

from __future__ import annotations

import pytest
import torch
from branching import Branches, Fire, LastBlock

from taut.compile import StreamedModel, schedule_streams
from taut.compile.interop import greedy, list_schedule
from taut.compile.scheduling import CudaStreams, stream_operators, unstaged_program
from taut.errors import GraphError, GuardError
from taut.graph import Graph, capture

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

NETWORKS = {
    "branches": (Branches(128, 32), (1, 128, 14, 14)),
    "last block": (LastBlock(1280, 320), (1, 1280, 8, 8)),
    "fire": (torch.nn.Sequential(Fire(64, 16, 64), Fire(128, 16, 64)), (1, 64, 55, 55)),
}


def captured(name: str) -> tuple[Graph, tuple[int, ...]]:
    module, shape = NETWORKS[name]
    return capture(module.eval(), (torch.randn(shape),)), shape


@pytest.mark.parametrize("name", NETWORKS)
def test_every_replay_gives_the_bits_of_the_sequential_program(name: str) -> None:
    graph, shape = captured(name)
    operators = stream_operators(graph).graph
    streams = CudaStreams()
    seconds = [[1.0, *[float("inf")] * 7]] * len(operators)
    sequential = StreamedModel(graph, device=streams)
    others = [
        StreamedModel(graph, greedy(operators, lambda stages: [1.0] * len(stages)), device=streams, streams=8),
        StreamedModel(graph, unstaged_program(operators, list_schedule(operators, seconds)), device=streams),
    ]
    for _ in range(50):
        x = torch.randn(shape, device=streams.device)
        expected = sequential(x)
        for model in others:
            assert torch.equal(model(x), expected)


def test_results_of_calls_from_other_streams_are_their_own() -> None:
    graph, shape = captured("branches")
    model = StreamedModel(graph, device="cuda")
    inputs = [torch.randn(shape, device="cuda") for _ in range(8)]
    expected = [model(x) for x in inputs]
    torch.cuda.synchronize()
    found = []
    for x in inputs:
        with torch.cuda.stream(torch.cuda.Stream()):
            found.append(model(x))
    torch.cuda.synchronize()
    assert all(map(torch.equal, found, expected))


def test_a_schedule_is_searched_measured_and_reported() -> None:
    module, shape = NETWORKS["branches"]
    x = torch.randn(shape)
    made = schedule_streams(module.eval(), (x,), device="cuda", streams=4, budget=20)
    report = made.schedule
    assert report is not None
    assert report.lane == "stream"
    assert all(one.measured_seconds > 0 for one in report.candidates)
    assert all(stage.predicted_seconds > 0 for stage in report.stages)
    assert sum(stage.measured_seconds for stage in report.stages) > 0
    assert all(span.end >= span.begin >= 0 for spans in report.timelines.values() for span in spans)
    torch.testing.assert_close(made(x.cuda()).cpu(), module(x).detach(), rtol=1e-2, atol=1e-2)


def test_what_does_not_fit_is_named() -> None:
    graph, shape = captured("branches")
    model = StreamedModel(graph, device="cuda")
    with pytest.raises(GuardError, match="is on cpu"):
        model(torch.randn(shape))


def test_what_lets_the_host_wait_cannot_be_captured() -> None:
    streams = CudaStreams()
    x = torch.ones(3, device=streams.device)
    with pytest.raises(GraphError, match="CUDA graph"):
        streams.capture(lambda: x.sum().item())
