"""Low-rank compressors against NumPy, and as what they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exchanges import exchange, random_gradients, total

from taut.distributed import AlternatingPowerSGD, Memory, PowerSGD
from taut.distributed._compressors._low_rank import LEFT, RIGHT, factors_of

SHAPE = (20, 5, 3)


def memories_with(side: str, factor: np.ndarray, ranks: int) -> list[Memory]:
    return [{"p0": {side: torch.from_numpy(factor.copy())}} for _ in range(ranks)]


@pytest.mark.parametrize("ranks", [2, 3])
def test_power_sgd_is_the_algorithm_of_the_paper(ranks: int) -> None:
    right = np.random.default_rng(0).normal(size=(15, 2))
    memories = memories_with(RIGHT, right, ranks)
    errors = [np.zeros((20, 15)) for _ in range(ranks)]
    for step in range(5):
        gradients = random_gradients(ranks, shapes=(SHAPE,), seed=step, dtype=torch.float64)
        matrices = [g["p0"].numpy().reshape(20, 15) + e for g, e in zip(gradients, errors, strict=True)]
        left = np.linalg.qr(np.mean([matrix @ right for matrix in matrices], axis=0)).Q
        right = np.mean([matrix.T @ left for matrix in matrices], axis=0)
        errors = [matrix - left @ right.T for matrix in matrices]
        found = exchange(PowerSGD(2), gradients, memories)
        for rank, error in zip(found, errors, strict=True):
            np.testing.assert_allclose(rank.gradients["p0"].numpy().reshape(20, 15), left @ right.T, atol=1e-10)
            np.testing.assert_allclose(rank.memory["p0"]["residual"].numpy().reshape(20, 15), error, atol=1e-10)


def test_alternating_power_sgd_is_the_algorithm_of_the_paper() -> None:
    right = np.random.default_rng(0).normal(size=(15, 2))
    left = np.zeros((20, 2))
    memories = memories_with(RIGHT, right, 2)
    errors = [np.zeros((20, 15)) for _ in range(2)]
    for step in range(6):
        gradients = random_gradients(2, shapes=(SHAPE,), seed=step, dtype=torch.float64)
        matrices = [g["p0"].numpy().reshape(20, 15) + e for g, e in zip(gradients, errors, strict=True)]
        if step % 2 == 0:
            basis = np.linalg.qr(right).Q
            own = [matrix @ basis @ basis.T for matrix in matrices]
            left = np.mean([matrix @ basis for matrix in matrices], axis=0)
        else:
            basis = np.linalg.qr(left).Q
            own = [basis @ basis.T @ matrix for matrix in matrices]
            right = np.mean([matrix.T @ basis for matrix in matrices], axis=0)
        errors = [matrix - projected for matrix, projected in zip(matrices, own, strict=True)]
        for rank in exchange(AlternatingPowerSGD(2), gradients, memories):
            found = rank.gradients["p0"].numpy().reshape(20, 15)
            np.testing.assert_allclose(found, np.mean(own, axis=0), atol=1e-10)
    np.testing.assert_allclose(memories[0]["p0"]["residual"].numpy().reshape(20, 15), errors[0], atol=1e-10)
    np.testing.assert_allclose(memories[0]["p0"][LEFT].numpy(), left, atol=1e-10)


@pytest.mark.parametrize("compressor", [PowerSGD(3), AlternatingPowerSGD(3)])
def test_sent_plus_residuals_is_the_sum_of_all_gradients(compressor: PowerSGD) -> None:
    memories: list[Memory] = [{} for _ in range(3)]
    summed, sent = torch.zeros(SHAPE), torch.zeros(SHAPE)
    for step in range(10):
        gradients = random_gradients(3, shapes=(SHAPE,), seed=step)
        summed += torch.stack([g["p0"] for g in gradients]).sum(dim=0)
        sent += exchange(compressor, gradients, memories)[0].gradients["p0"] * 3
    torch.testing.assert_close(sent + total(memories, "p0", summed), summed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compressor", [PowerSGD(2), AlternatingPowerSGD(2)])
def test_a_matrix_of_low_rank_is_found_exactly(compressor: PowerSGD) -> None:
    random = torch.Generator().manual_seed(0)
    matrix = torch.randn((20, 2), generator=random) @ torch.randn((2, 15), generator=random)
    memories: list[Memory] = [{}, {}]
    found = torch.zeros_like(matrix)
    for _ in range(4):
        found = exchange(compressor, [{"p": matrix}, {"p": matrix}], memories)[0].gradients["p"]
        for memory in memories:
            memory["p"]["residual"].zero_()
    torch.testing.assert_close(found, matrix, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("compressor", [PowerSGD, AlternatingPowerSGD])
@pytest.mark.parametrize("ranks", [(4, 4, 1, 1, 3, 3), (4, 4, 2, 2, 3, 3), (4, 2, 3, 1, 2, 4)])
def test_after_a_change_of_rank_the_factors_go_on(compressor: type[PowerSGD], ranks: tuple[int, ...]) -> None:
    memories: list[Memory] = [{}, {}]
    gradients = random_gradients(2, shapes=((20, 30),))
    for rank in ranks:
        first, second = exchange(compressor(rank), gradients, memories)
        assert torch.equal(first.gradients["p0"], second.gradients["p0"])
        assert torch.linalg.matrix_rank(first.gradients["p0"]) == rank


def test_columns_that_are_kept_stay_and_new_ones_are_orthogonal_to_them() -> None:
    from taut.distributed import Gradient
    from taut.distributed._compressors._low_rank import factor

    memory: Memory = {}
    gradient = Gradient("p", torch.zeros(8, 9))
    two = factor(gradient, RIGHT, 9, 2, 0, memory).clone()
    four = factor(gradient, RIGHT, 9, 4, 0, memory)
    assert torch.equal(four[:, :2], two)
    torch.testing.assert_close(four[:, 2:].T @ four, torch.eye(4)[2:], rtol=0, atol=1e-6)
    assert torch.equal(factor(gradient, RIGHT, 9, 1, 0, memory), two[:, :1])


def test_what_is_sent_as_factors() -> None:
    assert factors_of(torch.Size((64, 32, 3, 3)), 4) == (64, 288, 4)
    assert factors_of(torch.Size((64,)), 4) == (0, 0, 0)
    assert factors_of(torch.Size((2, 3)), 4) == (0, 0, 0)  # factors would be larger
    assert factors_of(torch.Size((0, 3)), 1) == (0, 0, 0)


def test_traffic_is_the_formula_of_the_paper() -> None:
    shapes = [torch.Size((64, 32, 3, 3)), torch.Size((64,)), torch.Size((10, 64))]
    floats = 2 * (64 + 288 + 10 + 64) + 64
    assert sum(message.size for message in PowerSGD(2).traffic(shapes, 4).messages) == 4 * floats
    alternating = AlternatingPowerSGD(2).traffic(shapes, 4).messages
    assert [message.size for message in alternating] == [4 * ((64 + 288 + 10 + 64) + 64)]
