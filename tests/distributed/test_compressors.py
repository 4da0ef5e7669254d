"""What all compressors have in common."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exchanges import EVERY_SHAPE, exchange, random_gradients, total, whole_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.distributed import (
    AlternatingPowerSGD,
    BFloat16,
    Compressor,
    DeepGradientCompression,
    Float16,
    Gradient,
    HardThreshold,
    Memory,
    NoCompression,
    PowerSGD,
    QuantisedSGD,
    RandomK,
    SignMajority,
    SparseAllReduce,
    StagedThreshold,
    Threshold,
    TopK,
)
from taut.errors import ArgumentError

CASTING = (NoCompression(), Float16(), BFloat16())
SPARSE = (
    TopK(0.1),
    TopK(0.1, values="bfloat16"),
    TopK(0.1, values="bfloat16", coding="compact"),
    Threshold(0.1),
    HardThreshold(0.5),
    DeepGradientCompression(0.1),
    DeepGradientCompression(0.1, warm_up=3),
    RandomK(0.2),
    SparseAllReduce(0.1),
)
LOW_RANK = (PowerSGD(2), AlternatingPowerSGD(2))
FEW_BITS = (SignMajority(), QuantisedSGD(8), QuantisedSGD(4), QuantisedSGD(2))
EVERY = (*CASTING, *SPARSE, *LOW_RANK, *FEW_BITS)
EXACT = (
    TopK(0.1),
    TopK(0.4),
    TopK(0.1, values="bfloat16"),
    TopK(0.1, coding="compact"),
    Threshold(0.1),
    Threshold(0.2, StagedThreshold()),
    HardThreshold(10),
    DeepGradientCompression(0.1, momentum=0),
    RandomK(0.2),
    SparseAllReduce(0.1),
    SparseAllReduce(0.5),
)
COUNTED = (*CASTING, TopK(0.1), TopK(0.6), DeepGradientCompression(0.1), RandomK(0.2), *FEW_BITS, PowerSGD(2))


def named(compressor: Compressor) -> str:
    return repr(compressor)


every = pytest.mark.parametrize("compressor", EVERY, ids=named)
settings_of_ranks = given(ranks=st.sampled_from([2, 3, 4]), seed=st.integers(0, 2**32 - 1))
few = settings(max_examples=8)  # each starts threads


@every
@few
@settings_of_ranks
def test_all_ranks_end_with_the_same_bits(compressor: Compressor, ranks: int, seed: int) -> None:
    memories: list[Memory] = [{} for _ in range(ranks)]
    for step in range(3):
        first, *others = exchange(compressor, random_gradients(ranks, seed=seed + step), memories)
        for other in others:
            for name, tensor in first.gradients.items():
                assert torch.equal(tensor, other.gradients[name])


@pytest.mark.parametrize("compressor", EXACT, ids=named)
@few
@given(ranks=st.sampled_from([2, 4]), seed=st.integers(0, 2**32 - 1))
def test_what_was_sent_plus_residuals_is_the_sum_of_all_gradients(
    compressor: Compressor, ranks: int, seed: int
) -> None:
    memories: list[Memory] = [{} for _ in range(ranks)]
    given_so_far = {f"p{i}": torch.zeros(shape) for i, shape in enumerate(EVERY_SHAPE)}
    sent_so_far = {name: tensor.clone() for name, tensor in given_so_far.items()}
    for step in range(4):
        gradients = whole_gradients(ranks, seed=seed + step)
        first, *_ = exchange(compressor, gradients, memories)
        for name, tensor in first.gradients.items():
            given_so_far[name] += torch.stack([of_rank[name] for of_rank in gradients]).sum(dim=0)
            sent_so_far[name] += tensor * ranks
    for name, summed in given_so_far.items():
        assert torch.equal(sent_so_far[name] + total(memories, name, summed), summed)


@pytest.mark.parametrize("compressor", COUNTED, ids=named)
@few
@settings_of_ranks
def test_bytes_sent_are_those_predicted(compressor: Compressor, ranks: int, seed: int) -> None:
    for rank in exchange(compressor, random_gradients(ranks, seed=seed)):
        shapes = [tensor.shape for tensor in rank.gradients.values()]
        assert rank.sent == pytest.approx(compressor.traffic(shapes, ranks).sent(ranks), rel=1e-12)


@every
def test_all_zero_gradients_give_zeros_and_send_no_residual(compressor: Compressor) -> None:
    memories: list[Memory] = [{} for _ in range(2)]
    exchange(compressor, random_gradients(2), memories)
    none = torch.zeros(1)
    before = [{name: kept.get("residual", none).clone() for name, kept in memory.items()} for memory in memories]
    zeros = [{name: torch.zeros_like(t) for name, t in gradients.items()} for gradients in random_gradients(2)]
    for rank, residuals in zip(exchange(compressor, zeros, memories), before, strict=True):
        assert all(not tensor.any() for tensor in rank.gradients.values())
        assert all(torch.equal(rank.memory[n].get("residual", none), r) for n, r in residuals.items())


@every
def test_training_goes_on_after_a_step_of_zeros(compressor: Compressor) -> None:
    memories: list[Memory] = [{} for _ in range(2)]
    zeros = [{name: torch.zeros_like(t) for name, t in gradients.items()} for gradients in random_gradients(2)]
    exchange(compressor, zeros, memories)
    for step in range(3):
        first, _ = exchange(compressor, random_gradients(2, seed=step), memories)
        assert first.gradients["p0"].any()


@every
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_a_value_that_is_not_finite_reaches_all_ranks_at_once_and_is_gone_after(
    compressor: Compressor, value: float
) -> None:
    memories: list[Memory] = [{} for _ in range(2)]
    gradients = random_gradients(2)
    gradients[1]["p0"][3, 5] = value
    first, second = exchange(compressor, gradients, memories)
    torch.testing.assert_close(first.gradients, second.gradients, rtol=0, atol=0, equal_nan=True)
    assert not first.gradients["p0"].isfinite().all()
    assert second.gradients["p1"].isfinite().all()
    for step in range(20):
        exchange(compressor, random_gradients(2, seed=step), memories)
    for rank in exchange(compressor, random_gradients(2), memories):
        assert rank.gradients["p0"].isfinite().all()


@every
def test_a_gradient_of_nothing_but_nan_is_gone_in_the_next_step(compressor: Compressor) -> None:
    """There are more of them than a sparse compressor sends."""
    memories: list[Memory] = [{} for _ in range(2)]
    gradients = random_gradients(2)
    gradients[1]["p0"].fill_(torch.nan)
    assert exchange(compressor, gradients, memories)[0].gradients["p0"].isnan().any()
    for rank in exchange(compressor, random_gradients(2, seed=1), memories):
        assert rank.gradients["p0"].isfinite().all()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_gradients_of_any_float_dtype(compressor: Compressor, dtype: torch.dtype) -> None:
    first, second = exchange(compressor, random_gradients(2, dtype=dtype))
    for name, tensor in first.gradients.items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, second.gradients[name])


@every
def test_the_result_points_where_the_mean_does(compressor: Compressor) -> None:
    memories: list[Memory] = [{} for _ in range(2)]
    gradients = random_gradients(2, shapes=((20, 30),))
    mean = (gradients[0]["p0"] + gradients[1]["p0"]) / 2
    summed = torch.zeros_like(mean)
    for _ in range(40):
        summed += exchange(compressor, gradients, memories)[0].gradients["p0"]
    assert torch.cosine_similarity(summed.flatten(), mean.flatten(), dim=0) > 0.8


@every
def test_tensors_of_one_bucket_and_tensors_apart_give_the_same(compressor: Compressor) -> None:
    apart = exchange(compressor, random_gradients(2))
    together = []
    for gradients in random_gradients(2):
        buffer = torch.cat([tensor.flatten() for tensor in gradients.values()])
        pieces = buffer.split([tensor.numel() for tensor in gradients.values()])
        together.append({n: piece.view(gradients[n].shape) for n, piece in zip(gradients, pieces, strict=True)})
    for rank, other in zip(apart, exchange(compressor, together), strict=True):
        for name, tensor in rank.gradients.items():
            assert torch.equal(tensor, other.gradients[name])


@every
def test_one_rank_alone_exchanges_with_itself(compressor: Compressor) -> None:
    for shapes in (EVERY_SHAPE, ((5,),), ((30, 7), (3,))):
        (rank,) = exchange(compressor, random_gradients(1, shapes))
        assert all(tensor.isfinite().all() for tensor in rank.gradients.values())
        assert rank.sent == 0


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (TopK, {"ratio": 0}),
        (TopK, {"ratio": 1.5}),
        (TopK, {"ratio": float("nan")}),
        (TopK, {"ratio": True}),
        (TopK, {"ratio": 0.1, "values": "float16"}),
        (RandomK, {"ratio": -1}),
        (RandomK, {"ratio": 0.1, "seed": -1}),
        (SparseAllReduce, {"ratio": 2}),
        (DeepGradientCompression, {"ratio": 0.1, "momentum": 1}),
        (DeepGradientCompression, {"ratio": 0.1, "warm_up": -1}),
        (HardThreshold, {"value": -1}),
        (HardThreshold, {"value": float("inf")}),
        (QuantisedSGD, {"bits": 3}),
        (PowerSGD, {"rank": 0}),
        (AlternatingPowerSGD, {"rank": 1.5}),
        (Threshold, {"ratio": 0.1, "estimator": "sidco"}),
        (Threshold, {"ratio": 0.1, "estimator": StagedThreshold}),
    ],
)
def test_wrong_settings_are_refused(kind: type[Compressor], wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        kind(**wrong)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_gradients_that_are_not_of_floating_point_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ArgumentError, match=f"gradient weight: got {dtype}"):
        Gradient("weight", torch.ones(3, dtype=dtype))
