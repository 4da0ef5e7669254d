"""Every published Inception schedule runs in our machine, and gives the bits of the sequential program."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from published_network import PublishedBlocks, published_stages

from taut.compile import compile_model
from taut.compile._generate import generate, library_of
from taut.compile._parallel import apply_schedule
from taut.compile.interop import ScheduledBlock, read_ios_schedule, validate
from taut.runtime import load

pytestmark = pytest.mark.skipif(find_spec("halide") is None, reason="the extra compile is not installed")

FILES = ("1", "16", "32", "64", "128", "k80", "v100")
SHRINK = 16
"""The fast tests have a sixteenth of the channels."""


def check(blocks: Sequence[ScheduledBlock], x: torch.Tensor, shrink: int) -> int:
    """Runs the blocks as their schedules say; returns how many stages have several groups."""
    torch.manual_seed(0)
    module = PublishedBlocks(blocks, shrink).eval()
    model = compile_model(module, (x,))
    expected = model(x)
    torch.testing.assert_close(expected, module(x), rtol=1e-3, atol=1e-4)
    stages = published_stages(model, blocks)
    scheduled = apply_schedule(model.lowered, stages)
    session = load(scheduled.program, library_of(scheduled.program, generate(scheduled.program))).session(poison=True)
    for _ in range(3):
        assert torch.equal(session(x)[0], expected)
    wide = sum(len(stage.groups) > 1 for block in blocks for stage in block.schedule.stages)
    assert sum(len(stage) > 1 for stage in stages.stages) == wide
    return wide


@pytest.mark.parametrize("name", ["1", "128"])
def test_the_last_inception_block_runs_in_its_published_stages(published: Path, name: str) -> None:
    network = read_ios_schedule(published / "specialization" / f"{name}.json")
    block = network.blocks[-2]
    validate(block.graph, block.schedule)
    assert check([block], torch.randn(1, 2048 // SHRINK, 4, 4), SHRINK) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_whole_network_runs_in_its_published_stages(published: Path, name: str) -> None:
    network = read_ios_schedule(published / "specialization" / f"{name}.json")
    for block in network.blocks:
        validate(block.graph, block.schedule)
    assert check(network.blocks, torch.randn(1, 3, 299, 299), 1) > 10
