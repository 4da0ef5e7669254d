"""Schedules as text in a recipe, and programs that keep to them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("halide", reason="the extra compile is not installed")

from taut.compile import CompiledModel, compile_model
from taut.compile._parallel import Part, Queues, list_schedule, schedulable
from taut.compile.scheduling import propose_queues, with_queues
from taut.compile.scheduling._queues import read_queues, write_queues
from taut.errors import ArgumentError, GraphError

ITEMS = st.one_of(
    st.integers(0, 999_999),
    st.builds(Part, st.integers(0, 99), st.integers(0, 9), st.integers(2, 10), st.booleans()),
)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.a(x)) * torch.tanh(self.b(x)))


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return compile_model(Branches().eval(), (torch.randn(6, 8),), dynamic_shapes=({0: torch.export.Dim.AUTO},))


@given(st.lists(st.lists(ITEMS, max_size=5).map(tuple), max_size=4).map(tuple))
@settings(max_examples=60)
def test_what_is_written_is_read_back(workers: tuple[tuple[int | Part, ...], ...]) -> None:
    queues = Queues(workers)
    assert read_queues(write_queues(queues)) == queues


@given(st.text(max_size=12))
@settings(max_examples=60)
def test_any_other_text_is_refused_or_names_steps(compiled: CompiledModel, text: str) -> None:
    try:
        with_queues(compiled, [text])
    except (ArgumentError, GraphError):
        return
    assert sorted(map(int, text.split())) == schedulable(compiled.lowered.blocks[0])


def test_a_schedule_of_a_program_whose_sizes_vary_is_right_for_all_sizes(compiled: CompiledModel) -> None:
    block = compiled.lowered.blocks[0]
    made = with_queues(compiled, write_queues(list_schedule(block, [1.0] * len(block.steps), 2)))
    for rows in (1, 6, 33):
        x = torch.randn(rows, 8)
        assert torch.equal(made(x), compiled(x))


def test_what_is_proposed_is_surely_faster_or_nothing(compiled: CompiledModel) -> None:
    x = torch.randn(6, 8)
    found = propose_queues(compiled, (x,), 2, budget=0.2)
    if found is not None:
        model, texts = found
        assert len(texts) == 2
        torch.testing.assert_close(model(x), compiled(x))
        torch.testing.assert_close(with_queues(compiled, texts)(x), compiled(x))
