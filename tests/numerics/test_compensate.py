"""Compensated rounding: less error in the outputs, on the same grid."""

import pytest
import torch

from taut.errors import ArgumentError
from taut.numerics import convolution_rows, encode


def moments(width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    x = torch.randn(4 * width, width, generator=generator) @ mixing
    return x.T @ x / len(x)


def output_error(weight: torch.Tensor, decoded: torch.Tensor, square: torch.Tensor) -> float:
    difference = (decoded - weight).flatten(1)
    return float(((difference @ square) * difference).sum())


@pytest.mark.parametrize("name", ["vsq4-v16-s4", "vsq3-v16-s6", "int4-channel", "fp8-e4m3-channel"])
@pytest.mark.parametrize("width", [64, 150])
def test_outputs_are_nearer_than_with_any_rounding_by_itself(name: str, width: int) -> None:
    weight = torch.randn(24, width, generator=torch.Generator().manual_seed(1))
    square = moments(width)
    compensated = encode(weight, name, chooser="compensate", moments=square)
    itself = encode(weight, name, importance=square.diagonal())
    assert compensated.nbytes == itself.nbytes
    ratio = output_error(weight, compensated.decode(), square) / output_error(weight, itself.decode(), square)
    assert ratio < 0.9


def test_uncorrelated_inputs_leave_nothing_to_compensate() -> None:
    weight = torch.randn(8, 48, generator=torch.Generator().manual_seed(1))
    compensated = encode(weight, "int4-channel", chooser="compensate", moments=torch.eye(48))
    assert torch.equal(compensated.codes(), encode(weight, "int4-channel").codes())


def test_compensated_numbers_survive_encoding_again() -> None:
    weight = torch.randn(24, 100, generator=torch.Generator().manual_seed(1))
    compensated = encode(weight, "vsq4-v16-s4", chooser="compensate", moments=moments(100)).decode()
    assert torch.equal(encode(compensated, "vsq4-v16-s4").decode(), compensated)


def test_a_convolution_takes_the_moments_of_all_its_taps() -> None:
    rows = convolution_rows(torch.randn(6, 20, 3, 3, generator=torch.Generator().manual_seed(1)))
    square = moments(180)
    compensated = encode(rows, "vsq4-v16-s4", chooser="compensate", moments=square).decode()
    assert output_error(rows, compensated, square) < 0.8 * output_error(
        rows, encode(rows, "vsq4-v16-s4").decode(), square
    )


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    square = moments(32)
    square[5] = square[:, 5] = 0
    for given in (square, torch.zeros(32, 32)):
        decoded = encode(torch.randn(4, 32), "vsq4-v16-s4", chooser="compensate", moments=given).decode()
        assert torch.isfinite(decoded).all()


def test_refusals() -> None:
    weight = torch.randn(4, 32)
    with pytest.raises(ArgumentError, match="moments"):
        encode(weight, "vsq4-v16-s4", chooser="compensate")
    with pytest.raises(ArgumentError, match="moments"):
        encode(weight, "vsq4-v16-s4", chooser="compensate", moments=torch.eye(31))
    with pytest.raises(ArgumentError, match="not positive"):
        encode(weight, "vsq4-v16-s4", chooser="compensate", moments=-torch.eye(32))
    with pytest.raises(ArgumentError, match="not symmetric"):
        encode(weight, "vsq4-v16-s4", chooser="compensate", moments=torch.eye(32) + torch.ones(32, 32).triu())
    with pytest.raises(ArgumentError, match="NaN"):
        encode(weight, "vsq4-v16-s4", chooser="compensate", moments=torch.eye(32) * torch.nan)
    with pytest.raises(ArgumentError, match="compensate"):
        encode(weight, "mxfp4", chooser="compensate", moments=torch.eye(32))
    with pytest.raises(ArgumentError, match="moments"):
        encode(weight, "vsq4-v16-s4", moments=torch.eye(32))
