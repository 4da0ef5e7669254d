"""Choosing real-valued scales: one a row, one a tensor, with and without a zero point."""

import pytest
import torch

from taut.errors import ArgumentError
from taut.numerics import encode


def numbers(rows: int = 32, width: int = 512) -> torch.Tensor:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    x[:, 0] *= 12  # one outlier a row
    return x


def error(x: torch.Tensor, name: str, chooser: str) -> float:
    return float((encode(x, name, chooser=chooser).decode() - x).square().sum())


def test_max_is_the_symmetric_scale_in_the_narrow_range() -> None:
    x = numbers()
    encoded = encode(x, "int4-channel", chooser="max")
    gammas = encoded.gammas()
    assert gammas is not None
    assert torch.equal(gammas, x.abs().amax(1) / 7)
    assert int(encoded.codes().abs().max()) == 7
    assert not (encoded.codes() == -8).any()


def test_every_calibration_beats_max_where_there_are_outliers() -> None:
    x = numbers()
    for name in ("int4-channel", "int4-tensor"):
        worst = error(x, name, "max")
        for chooser in ("percentile", "entropy", "mse"):
            assert error(x, name, chooser) < worst
        assert error(x, name, "mse") == min(error(x, name, c) for c in ("max", "percentile", "entropy", "mse"))


def test_mse_is_next_to_the_best_range_of_a_fine_grid() -> None:
    x = numbers(4, 200)
    for row in x:
        best = min(
            float(((row / s).round().clamp(-7, 7) * s - row).square().sum())
            for s in (row.abs().max() / 7 * torch.linspace(0.1, 1.1, 2000)).tolist()
        )
        assert error(row[None], "int4-channel", "mse") <= 1.01 * best


def test_percentile_is_the_order_statistic() -> None:
    x = torch.arange(1.0, 1001.0)[None]
    gammas = encode(x, "int8-channel", chooser="percentile-90").gammas()
    assert gammas is not None
    assert float(gammas) == pytest.approx(900 / 127, rel=1e-6)
    with pytest.raises(ArgumentError, match="chooser"):
        encode(x, "int8-channel", chooser="percentile-101")


def test_a_zero_point_serves_numbers_of_one_sign_and_keeps_zero_exact() -> None:
    x = torch.rand(16, 300, generator=torch.Generator().manual_seed(0))
    x[:, ::7] = 0
    assert error(x, "uint4-channel", "max") < 0.3 * error(x, "int4-channel", "max")
    for shift in (0.0, -0.4):
        moved = x + shift * (x > 0)
        encoded = encode(moved, "uint4-channel", chooser="max")
        assert (encoded.decode()[x == 0] == 0).all()
        zero_points, gammas = encoded.zero_points(), encoded.gammas()
        assert zero_points is not None
        assert gammas is not None
        expected = (encoded.codes().float() - zero_points[:, None]) * gammas[:, None]
        assert torch.equal(encoded.decode(), expected)


def test_importance_moves_the_error_to_where_it_matters_less() -> None:
    x = numbers(16, 64)
    importance = torch.ones(64)
    importance[:8] = 100.0
    for name in ("int4-channel", "vsq4-v16-s4", "vsq4-v16-f32", "mxfp4"):
        chooser = "search" if name == "mxfp4" else None
        plain = (encode(x, name, chooser=chooser).decode() - x).square()
        weighted = (encode(x, name, chooser=chooser, importance=importance).decode() - x).square()
        assert (weighted * importance).sum() <= (plain * importance).sum()
        assert weighted.sum() >= plain.sum()
