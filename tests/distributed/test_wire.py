"""The wire: entries of any number arrive as they were sent, in one form or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
import wire_ranks

from taut.distributed import LocalRanks, _wire, gather_sparse, gather_uneven
from taut.distributed._traffic import HEADER_BYTES
from taut.distributed._wire import Coding, coded_bits, pack_entries, sparse_bytes, unpack_entries
from taut.errors import ArgumentError, CommunicationError, KernelError, MeasurementError
from taut.kernels import encode_indices, top_k


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalRanks]:
    with LocalRanks(2) as ranks:
        yield ranks


@pytest.mark.parametrize("shared", [True, False])
def test_entries_of_all_sizes_and_forms_arrive_as_they_were_sent(pair: LocalRanks, shared: bool) -> None:
    assert pair.run(wire_ranks.exchange_growing_entries, shared) == [9 * 3 * 2] * 2


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, 6])
def test_entries_arrive_where_messages_of_some_ranks_have_grown(ranks: int) -> None:
    with LocalRanks(ranks) as several:
        assert several.run(wire_ranks.exchange_growing_entries, False) == [9 * 3 * 2] * ranks


@pytest.mark.parametrize(("shared", "network"), [(True, False), (True, True), (False, False)])
def test_uneven_tensors_arrive_as_they_were_sent_on_the_way_that_was_chosen(
    pair: LocalRanks, shared: bool, network: bool
) -> None:
    assert pair.run(wire_ranks.exchange_uneven, shared, network) == [True, True]


def test_ranks_that_disagree_on_the_form_are_told_both(pair: LocalRanks) -> None:
    told = pair.run(wire_ranks.disagree)
    assert told[0] == told[1]
    assert "rank 0 plain entries with float32 values, rank 1 compact entries with float32 values" in told[0]


def test_a_probe_that_fails_on_rank_zero_leaves_nobody_waiting(pair: LocalRanks) -> None:
    assert pair.run(wire_ranks.probe_where_rank_zero_fails, timeout=60.0) == ["no loopback here", "None"]


@pytest.mark.slow
def test_four_ranks() -> None:
    with LocalRanks(4) as ranks:
        for shared in (True, False):
            assert ranks.run(wire_ranks.exchange_growing_entries, shared) == [9 * 3 * 2] * 4
            assert ranks.run(wire_ranks.exchange_uneven, shared) == [True] * 4


def test_an_error_on_a_rank_ends_all_and_is_shown() -> None:
    with LocalRanks(2) as ranks:
        assert ranks.run(wire_ranks.rank_and_size) == [(0, 2), (1, 2)]
        with pytest.raises(MeasurementError, match="rank one cannot"):
            ranks.run(wire_ranks.fail_on_one)
        with pytest.raises(MeasurementError, match="not running"):
            ranks.run(wire_ranks.rank_and_size)


@pytest.mark.slow
def test_a_rank_that_does_not_answer_is_given_up() -> None:
    with LocalRanks(2) as ranks, pytest.raises(MeasurementError, match="rank 1: no answer"):
        ranks.run(wire_ranks.never_answer, timeout=1.0)


@pytest.mark.parametrize("share", [0.3, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_the_expected_bits_are_those_of_large_entries_at_random_places(share: float, dtype: torch.dtype) -> None:
    elements = 2_000_000
    indices, values = top_k(torch.randn(elements, generator=torch.Generator().manual_seed(1)), int(share * elements))
    packed = pack_entries(indices, values.to(dtype), "compact").numel() - HEADER_BYTES
    near = 0.02 if dtype == torch.float16 else 0.08  # exponents depend on the data
    assert packed == pytest.approx(sparse_bytes(len(indices), elements, dtype, "compact"), rel=near)
    assert encode_indices(indices, elements).numel() * 8 / len(indices) == pytest.approx(coded_bits(share), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_damaged_messages_are_refused_or_decoded(dtype: torch.dtype) -> None:
    message = pack_entries(*wire_ranks.entries_of(0, 100, dtype), "compact")
    damages = [message[:length].clone() for length in range(len(message))]
    for place in range(64):
        for byte in (0, 1, 127, 255):
            damages.append(message.clone())
            damages[-1][place] = byte
    for damaged in damages:
        with contextlib.suppress(CommunicationError, KernelError):
            indices, values = unpack_entries(damaged, 100, dtype, "compact")
            assert len(indices) == len(values) == 100


@pytest.mark.parametrize("coding", ["plain", "compact"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
@pytest.mark.parametrize("kept", [0, 1, 5])
def test_any_layout_is_packed(kept: int, dtype: torch.dtype, coding: Coding) -> None:
    values = torch.randn(2 * kept, requires_grad=True).to(dtype)[::2]
    indices = torch.arange(2 * kept, dtype=torch.int32)[::2]
    found = unpack_entries(pack_entries(indices, values, coding), kept, dtype, coding)
    assert torch.equal(found[0], indices)
    assert torch.equal(found[1], values)


@pytest.mark.parametrize("coding", ["plain", "compact"])
def test_values_that_are_negated_when_they_are_read_keep_their_signs(coding: Coding) -> None:
    values = torch.tensor([1 + 2j]).conj().imag
    found = unpack_entries(pack_entries(torch.zeros(1, dtype=torch.int32), values, coding), 1, torch.float32, coding)
    assert found[1].tolist() == [-2.0]


@pytest.mark.parametrize("kept", [0, 1, 1001])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_plain_entries_on_a_device_have_the_message_of_those_on_the_host(dtype: torch.dtype, kept: int) -> None:
    given = wire_ranks.entries_of(0, kept, dtype)
    message = pack_entries(*given)
    there = _wire._pack_plain(*given, torch.empty_like(message), _wire._form(dtype, "plain"))
    assert torch.equal(there, message)
    for found, expected in zip(_wire._unpack_plain(there, kept, dtype), given, strict=True):
        assert torch.equal(found, expected)
    for wrong in (torch.cat([message[:8] + 4, message[8:]]), torch.cat([message[:8] + 4, message[8:], message[:4]])):
        with pytest.raises(KernelError, match="have arrived"):
            _wire._unpack_plain(wrong, kept, dtype)


def test_plain_entries_take_four_bytes_an_index() -> None:
    indices, values = wire_ranks.entries_of(0, 1000, torch.float32)
    assert pack_entries(indices, values).numel() - HEADER_BYTES == 8000 == sparse_bytes(1000, 10**6, torch.float32)


@pytest.mark.parametrize(
    ("indices", "values", "coding"),
    [
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2), "plain"),
        (torch.zeros(2, 1, dtype=torch.int32), torch.zeros(2, 1), "plain"),
        (torch.zeros(2, dtype=torch.int32), torch.zeros(3), "plain"),
        (torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.float64), "plain"),
        (torch.zeros(2, dtype=torch.int32), torch.zeros(2), "zip"),
    ],
)
def test_entries_that_do_not_fit_are_refused(indices: torch.Tensor, values: torch.Tensor, coding: str) -> None:
    with pytest.raises(ArgumentError):
        gather_sparse(indices, values, coding=coding)  # pyright: ignore[reportArgumentType]


def test_without_ranks_there_is_no_exchange() -> None:
    with pytest.raises(CommunicationError, match="no ranks"):
        gather_uneven(torch.zeros(3))
    with pytest.raises(ArgumentError, match="tensor"):
        gather_uneven(torch.zeros(3, 1))
    with pytest.raises(ArgumentError, match="ranks"):
        LocalRanks(0)
