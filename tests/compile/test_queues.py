"""Schedules as text in a recipe, and programs that keep to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("halide", reason="the extra compile is not installed")

from taut.compile import CompiledModel, compile_model, load, save
from taut.compile._inspect import _profile
from taut.compile._parallel import Part, Queues, longest_path_first, schedulable
from taut.compile.scheduling import propose_queues, with_queues
from taut.compile.scheduling._choose import Choice
from taut.compile.scheduling._plan import Candidate
from taut.compile.scheduling._queues import read_queues, write_queues
from taut.errors import ArgumentError, GraphError
from taut.runtime import Opcode

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
    made = with_queues(compiled, write_queues(longest_path_first(block, [1.0] * len(block.steps), 2)))
    for rows in (1, 6, 33):
        x = torch.randn(rows, 8)
        assert torch.equal(made(x), compiled(x))


def keeping(name: str) -> Callable[..., Choice]:
    """A choice of the candidate of that name."""

    def choose(made: Sequence[Candidate], *_: object) -> Choice:
        return Choice(next(one for one in made if one.name == name), {}, None)

    return choose


def test_what_is_proposed_keeps_to_its_text(compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(6, 8)
    monkeypatch.setattr("taut.compile.scheduling._queues.choose", keeping("list"))
    found = propose_queues(compiled, (x,), 2, budget=0.2)
    assert found is not None
    model, texts = found
    assert len(texts) == 2
    assert torch.equal(model(x), compiled(x))
    again = with_queues(compiled, texts)
    assert again.program.functions == model.program.functions
    assert torch.equal(again(x), compiled(x))


def test_nothing_is_proposed_where_the_sequential_program_stays(
    compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taut.compile.scheduling._queues.choose", keeping("sequential"))
    assert propose_queues(compiled, (torch.randn(6, 8),), 2, budget=0.2) is None


def test_on_one_worker_every_step_is_timed_once(compiled: CompiledModel, tmp_path: Path) -> None:
    block = compiled.lowered.blocks[0]
    made = with_queues(compiled, write_queues(longest_path_first(block, [1.0] * len(block.steps), 2)))
    code = made.program.functions[0].instructions
    assert any(words[0] == Opcode.PARALLEL for words in code)
    assert all(code[pc][0] != Opcode.PARALLEL for _, pc in _profile(made, [torch.randn(6, 8)]))
    alone = load(save(made, tmp_path / "made.taut"), workers=1)
    spans = [span for _ in range(20) for span in alone.session.timeline(torch.randn(6, 8))]
    assert {span.worker for span in spans} == {0}
    with pytest.raises(ArgumentError, match="workers"):
        load(tmp_path / "made.taut", workers=0)
