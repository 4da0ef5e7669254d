"""Controllers at work in an exchange: whose decision counts, and what is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import run_processes

from taut.distributed import (
    Accordion,
    Communicator,
    Compressor,
    Controller,
    Gradient,
    PowerSGD,
    ProcessGroupCommunicator,
    RandomSchedule,
    Replay,
    TopK,
    run_ranks,
)
from taut.distributed._exchange import Exchange

SHAPES = {"first": (40, 30), "second": (64, 20), "bias": (30,)}
EPOCHS, STEPS = 6, 3


def gradient(name: str, rank: int, epoch: int, step: int) -> torch.Tensor:
    """Of a norm that halves from epoch to epoch in the first parameter only, and on rank 0 only."""
    seed = ((len(name) * 4 + rank) * EPOCHS + epoch) * STEPS + step
    drawn = torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(seed))
    return drawn + (8 * 0.4**epoch if name == "first" and rank == 0 else 8)


class Trained:
    """What a rank has seen: levels and bytes of each epoch, and the sum of what it got back."""

    def __init__(self, communicator: Communicator, levels: Sequence[Compressor], controller: Controller) -> None:
        exchange = Exchange(list(SHAPES), levels, controller, communicator)
        self.levels: list[dict[str, int]] = []
        self.sent: list[float] = []
        self.received = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
        self.given = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
        for epoch in range(EPOCHS):
            exchange.start_epoch(epoch, 0.1)
            self.levels.append(dict(exchange.levels))
            before = communicator.sent
            for step in range(STEPS):
                own = [Gradient(name, gradient(name, communicator.rank, epoch, step)) for name in SHAPES]
                for name, tensor in own:
                    self.given[name] += tensor
                exchange(own)
                for name, tensor in own:
                    self.received[name] += tensor
            self.sent.append(communicator.sent - before)
        self.residuals = {name: exchange.memory.get(name, {}).get("residual") for name in SHAPES}


def trained(levels: Sequence[Compressor], make: Callable[[], Controller], ranks: int = 4) -> list[Trained]:
    return run_ranks(ranks, lambda communicator: Trained(communicator, levels, make()))


def accordion() -> Controller:
    return Accordion(SHAPES, switch_every=1)


LEVELS = {"top-k": (TopK(0.2), TopK(0.02)), "PowerSGD": (PowerSGD(3), PowerSGD(1))}


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
class TestSwitching:
    def test_ranks_with_different_norms_take_the_decision_of_rank_0(self, levels: Sequence[Compressor]) -> None:
        ranks = trained(levels, accordion)
        assert [epoch["first"] for epoch in ranks[0].levels] == [0, 0, 0, 0, 1, 1]  # the halving norm drowns in noise
        assert [epoch["second"] for epoch in ranks[0].levels] == [0, 0, 1, 1, 1, 1]
        for rank in ranks[1:]:
            assert rank.levels == ranks[0].levels
            assert all(torch.equal(rank.received[name], ranks[0].received[name]) for name in SHAPES)

    def test_replaying_the_schedule_sends_the_same_bytes(self, levels: Sequence[Compressor]) -> None:
        adaptive = trained(levels, accordion)[0]
        replayed = trained(levels, lambda: Replay(adaptive.levels))[0]
        assert replayed.sent == adaptive.sent
        assert all(torch.equal(replayed.received[name], adaptive.received[name]) for name in SHAPES)

    def test_bytes_are_those_that_the_levels_declare(self, levels: Sequence[Compressor]) -> None:
        adaptive = trained(levels, accordion)[0]
        for epoch, sent in zip(adaptive.levels, adaptive.sent, strict=True):
            declared = 0.0
            for level, compressor in enumerate(levels):
                shapes = [torch.Size(SHAPES[name]) for name in SHAPES if epoch[name] == level]
                declared += compressor.traffic(shapes, 4).sent(4) if shapes else 0
            assert sent == pytest.approx(STEPS * declared, rel=1e-12)

    def test_nothing_is_lost_when_levels_change(self, levels: Sequence[Compressor]) -> None:
        """The mean of all gradients arrives, but for the mean of what residuals still hold."""
        ranks = trained(levels, accordion)
        for name in SHAPES:
            given = sum(rank.given[name] for rank in ranks) / 4
            residuals = [rank.residuals[name] for rank in ranks]
            held = sum(residual.double() for residual in residuals if residual is not None) / 4
            torch.testing.assert_close(ranks[0].received[name].double() + held, given, rtol=0, atol=2e-3)

    def test_random_schedule_sends_as_much(self, levels: Sequence[Compressor]) -> None:
        adaptive = trained(levels, accordion)[0]
        random = trained(levels, lambda: RandomSchedule(adaptive.levels, 1))[0]
        assert random.levels != adaptive.levels
        counts = 1.02  # of the counts that are exchanged once a level
        assert sum(adaptive.sent) / counts <= sum(random.sent) <= sum(adaptive.sent) * counts


def rank_of_gloo(rank: int, levels: Sequence[Compressor]) -> Trained:
    assert dist.group.WORLD is not None
    return Trained(ProcessGroupCommunicator(dist.group.WORLD, torch.device("cpu")), levels, accordion())


@pytest.mark.slow
@pytest.mark.parametrize("name", LEVELS)
def test_ranks_that_are_threads_do_what_gloo_processes_do(name: str, tmp_path: Path) -> None:
    """To the bit where entries are gathered; sums of four run in another order in an all-reduce."""
    threads, processes = trained(LEVELS[name], accordion), run_processes(4, rank_of_gloo, tmp_path, LEVELS[name])
    for thread, process in zip(threads, processes, strict=True):
        assert thread.levels == process.levels
        assert thread.sent == process.sent
        for parameter in SHAPES:
            tolerance: Mapping[str, Any] = {"rtol": 0, "atol": 0} if name == "top-k" else {"rtol": 1e-3, "atol": 1e-3}
            torch.testing.assert_close(thread.received[parameter], process.received[parameter], **tolerance)


def resnet18() -> list[torch.Size]:
    """Shapes of the parameters of ResNet-18 for CIFAR: 3x3 stem, no pooling, 1x1 shortcuts where sizes change."""
    shapes: list[tuple[int, ...]] = [(64, 3, 3, 3), (64,), (64,)]
    width = 64
    for channels in (64, 128, 256, 512):
        for _ in range(2):
            shapes += [
                (channels, width, 3, 3),
                (channels,),
                (channels,),
                (channels, channels, 3, 3),
                (channels,),
                (channels,),
            ]
            if width != channels:
                shapes += [(channels, width, 1, 1), (channels,), (channels,)]
            width = channels
    return [torch.Size(shape) for shape in [*shapes, (10, 512), (10,)]]


def test_floats_of_resnet18_by_counting() -> None:
    """PowerSGD at rank 1 over 300 epochs of 98 steps: steps * (r * sum(n + m) + one-dimensional parameters)."""
    shapes = resnet18()
    assert sum(shape.numel() for shape in shapes) == 11_173_962
    floats = sum(message.size for message in PowerSGD(1).traffic(shapes, 4).messages) / 4
    assert round(300 * 98 * floats / 1e6, 1) == 1350.5
    matrices = [shape for shape in shapes if len(shape) > 1]
    for rank in (1, 2, 4):
        expected = sum(rank * (shape[0] + shape[1:].numel()) for shape in matrices)
        expected += sum(shape.numel() for shape in shapes if len(shape) == 1)
        assert sum(message.size for message in PowerSGD(rank).traffic(shapes, 4).messages) == 4 * expected
