"""Selection with error feedback, element by element."""

from __future__ import annotations

import pytest
import torch
from exchanges import exchange, random_gradients, total
from hypothesis import given
from hypothesis import strategies as st

from taut.distributed import DeepGradientCompression, Gradient, HardThreshold, Memory, RandomK, SparseAllReduce, TopK
from taut.distributed._compressors._random_k import distinct
from taut.distributed._compressors._sparse import SparseCompressor, runs

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def sent_of(compressor: SparseCompressor, values: torch.Tensor, memory: Memory) -> torch.Tensor:
    """What a rank sends of a gradient, (elements,) with zeros where nothing is sent."""
    entries = compressor.take_all([Gradient("p", values.clone())], memory)
    assert entries.indices.dtype == torch.int32
    assert bool((entries.indices.diff() > 0).all())
    dense = torch.zeros_like(values)
    dense[entries.indices] = entries.values.to(values.dtype)
    return dense


@pytest.mark.parametrize("compressor", [TopK(0.3), HardThreshold(1.0)])
@given(steps=st.lists(st.lists(floats, min_size=7, max_size=7), min_size=1, max_size=4))
def test_sent_plus_residual_is_residual_plus_gradient_to_the_bit(
    compressor: SparseCompressor, steps: list[list[float]]
) -> None:
    memory: Memory = {}
    before = torch.zeros(7)
    for values in steps:
        gradient = torch.tensor(values)
        sent = sent_of(compressor, gradient, memory)
        after = memory.get("p", {}).get("residual", torch.zeros(7))
        finite = (before + gradient).isfinite()
        assert torch.equal((sent + after)[finite], (before + gradient)[finite])
        before = after.clone()


@given(values=st.lists(floats, min_size=1, max_size=30), ratio=st.floats(0.01, 1))
def test_top_k_takes_the_largest(values: list[float], ratio: float) -> None:
    gradient = torch.tensor(values)
    memory: Memory = {}
    entries = TopK(ratio).take_all([Gradient("p", gradient.clone())], memory)
    if not gradient.any():
        assert not entries.indices.numel()
        return
    assert entries.indices.numel() == max(1, round(ratio * len(values)))
    assert entries.values.abs().min() >= memory["p"]["residual"].abs().max()


def test_what_bfloat16_cuts_off_stays_in_the_residual() -> None:
    gradient = torch.tensor([1 + 2**-12, 0.25])
    memory: Memory = {}
    sent = sent_of(TopK(0.5, values="bfloat16"), gradient, memory)
    assert sent.tolist() == [1.0, 0.0]
    assert memory["p"]["residual"].tolist() == [2**-12, 0.25]


def test_an_overflow_to_infinity_is_not_kept() -> None:
    memory: Memory = {}
    largest = torch.finfo(torch.float32).max
    assert sent_of(TopK(0.5, values="bfloat16"), torch.tensor([largest, 1.0]), memory)[0] == torch.inf
    assert memory["p"]["residual"].tolist() == [0.0, 1.0]


def test_ties_go_to_the_first() -> None:
    sent = sent_of(TopK(0.5), torch.tensor([1.0, -2.0, 2.0, 2.0]), {})
    assert sent.tolist() == [0.0, -2.0, 2.0, 0.0]


def test_many_kept_entries_travel_as_an_all_reduce() -> None:
    shapes = [torch.Size((1000,))]
    assert [m.collective for m in TopK(0.49).traffic(shapes, 2).messages] == ["all_gather", "all_gather"]
    assert [m.collective for m in TopK(0.5).traffic(shapes, 2).messages] == ["all_reduce"]
    assert [m.collective for m in TopK(0.1).traffic(shapes, 16).messages] == ["all_reduce"]


def test_coded_entries_send_fewer_bytes() -> None:
    gradients = random_gradients(2, shapes=((100, 1000),))
    plain, compact = (
        exchange(TopK(0.01, values="bfloat16", coding=coding), gradients)[0] for coding in ("plain", "compact")
    )
    assert torch.equal(plain.gradients["p0"], compact.gradients["p0"])
    assert compact.sent < 0.4 * plain.sent
    predicted = TopK(0.01, values="bfloat16", coding="compact").traffic([torch.Size((100, 1000))], 2).sent(2)
    assert compact.sent == pytest.approx(predicted, rel=0.08)


def test_velocity_is_corrected_and_masked() -> None:
    """Two steps by hand: momentum 0.5, one of two entries sent."""
    memory: Memory = {}
    compressor = DeepGradientCompression(0.5, momentum=0.5)
    assert sent_of(compressor, torch.tensor([4.0, 1.0]), memory).tolist() == [4.0, 0.0]
    assert memory["p"]["velocity"].tolist() == [0.0, 1.0]
    assert sent_of(compressor, torch.tensor([1.0, 2.0]), memory).tolist() == [0.0, 3.5]  # 1 + (0.5 * 1 + 2)
    assert memory["p"]["velocity"].tolist() == [1.0, 0.0]
    assert memory["p"]["residual"].tolist() == [1.0, 0.0]


def test_warm_up_sends_fewer_entries_in_each_step() -> None:
    memories: list[Memory] = [{}, {}]
    gradients = random_gradients(2, shapes=((1000,),))
    sent = [
        exchange(DeepGradientCompression(0.001, warm_up=3), gradients, memories)[0].gradients["p0"].count_nonzero()
        for _ in range(5)
    ]
    assert sent == sorted(sent, reverse=True)
    assert sent[0] > 100
    assert sent[3] <= 2


@given(elements=st.integers(1, 200), share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_random_entries_are_distinct(elements: int, share: float, seed: int) -> None:
    kept = int(share * elements)
    indices = distinct(elements, kept, torch.Generator().manual_seed(seed))
    assert len(set(indices.tolist())) == kept
    assert all(0 <= index < elements for index in indices.tolist())


def test_random_entries_are_all_equally_likely() -> None:
    random = torch.Generator().manual_seed(0)
    counts = torch.zeros(40)
    for _ in range(4000):
        counts[distinct(40, 4, random)] += 1
    expected = 4000 * 4 / 40
    assert ((counts - expected) ** 2 / expected).sum() < 80  # chi-squared with 39 degrees: P < 0.0002


def test_random_entries_change_from_step_to_step_and_not_from_rank_to_rank() -> None:
    memories: list[Memory] = [{}, {}]
    gradients = random_gradients(2, shapes=((100,),))
    steps = [exchange(RandomK(0.1), gradients, memories) for _ in range(2)]
    chosen = [[rank.gradients["p0"].nonzero().flatten().tolist() for rank in step] for step in steps]
    assert chosen[0][0] == chosen[0][1]
    assert chosen[0][0] != chosen[1][0]


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_traffic_of_the_sparse_all_reduce_does_not_grow_with_ranks(ranks: int) -> None:
    kept = 500
    gradients = random_gradients(ranks, shapes=((50, 1000),))
    for rank in exchange(SparseAllReduce(0.01), gradients):
        assert rank.sent < 6 * 4 * kept
        assert rank.gradients["p0"].count_nonzero() <= kept + ranks


def test_the_sparse_all_reduce_returns_what_did_not_come_back() -> None:
    memories: list[Memory] = [{}, {}]
    gradients = [{"p": torch.tensor([8.0, 0, 0, 1, 0, 0, 0, 3])}, {"p": torch.tensor([8.0, 0, 0, 0, 2, 0, 0, 5])}]
    first, _ = exchange(SparseAllReduce(0.25), gradients, memories)
    assert first.gradients["p"].tolist() == [8.0, 0, 0, 0, 0, 0, 0, 4.0]
    assert total(memories, "p", first.gradients["p"]).tolist() == [0, 0, 0, 1, 2, 0, 0, 0]


def test_gradients_are_grouped_so_that_an_int32_counts_their_elements() -> None:
    gradients = [Gradient(str(size), torch.zeros(size)) for size in (3, 3, 5, 1, 1)]
    assert [[g.name for g in run] for run in runs(gradients, most=6)] == [["3", "3"], ["5", "1"], ["1"]]
