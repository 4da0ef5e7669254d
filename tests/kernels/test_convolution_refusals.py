"""Convolutions check their arguments before a pointer is used, and pack functions what they are given."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from taut.errors import KernelError
from taut.kernels import (
    MAX_IN_FEATURES,
    int8_convolution,
    pack_int8_convolution,
    pack_vector_convolution,
    vector_convolution,
)
from taut.kernels._load import _native

GEOMETRY: dict[str, Any] = {"kernel_size": [3, 2], "stride": [1, 1], "padding": [1, 0], "dilation": [1, 1]}


def codes_of(channels: int = 20, taps: int = 6, features: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    codes = torch.randint(-7, 8, (channels, taps, features), dtype=torch.int8)
    scales = torch.randint(0, 16, (channels, taps, -(-features // 16)), dtype=torch.uint8)
    return codes, scales, torch.rand(channels)


def arguments(coding: str) -> dict[str, Any]:
    if coding == "int8":
        packed, scales = pack_int8_convolution(torch.randn(20, 10, 3, 2))
    else:
        packed, scales = pack_vector_convolution(*codes_of()), torch.ones(20)
    x = torch.randn(2, 10, 5, 6).contiguous(memory_format=torch.channels_last)
    scales_name = "scales" if coding == "int8" else "gammas"
    return {"x": x, "packed": packed, scales_name: scales, "bias": torch.randn(20), "activation": "none"} | GEOMETRY


def nhwc(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


COMMON: list[tuple[str, Callable[[], object]]] = [
    ("x", lambda: "text"),
    ("x", lambda: None),
    ("x", lambda: torch.randn(10, 5, 6)),
    ("x", lambda: nhwc(2, 9, 5, 6)),
    ("x", lambda: nhwc(2, 12, 5, 6)),
    ("x", lambda: nhwc(2, 0, 5, 6)),
    ("x", lambda: nhwc(2, 10, 0, 6)),
    ("x", lambda: nhwc(2, 10, 5, 1)),
    ("x", lambda: nhwc(2, 10, 5, 6).double()),
    ("x", lambda: nhwc(2, 10, 5, 6).to(torch.complex64)),
    ("x", lambda: torch.randn(2, 10, 5, 6).to_sparse()),
    ("packed", lambda: None),
    ("packed", lambda: torch.zeros(2, 20, 16, 4)),
    ("packed", lambda: torch.zeros(1, 20, 16, 4, dtype=torch.int8)),
    ("packed", lambda: torch.zeros(2, 20, 16, 4, dtype=torch.int8)),
    ("packed", lambda: torch.zeros(2, 19, 16, 4, dtype=torch.int8)),
    ("packed", lambda: torch.zeros(2, 944, dtype=torch.int8)),
    ("packed", lambda: torch.zeros(2, 1888, dtype=torch.int8)[:, ::2]),
    ("bias", lambda: torch.ones(19)),
    ("bias", lambda: torch.ones(20, dtype=torch.bfloat16)),
    ("bias", lambda: torch.ones(40)[::2]),
    ("activation", lambda: "GELU"),
    ("kernel_size", lambda: [0, 2]),
    ("kernel_size", lambda: [-3, -2]),
    ("kernel_size", lambda: [3, 3]),
    ("stride", lambda: [0, 1]),
    ("stride", lambda: [1, 2**40]),
    ("padding", lambda: [-1, 0]),
    ("padding", lambda: [2**62, 0]),
    ("dilation", lambda: [1, 0]),
    ("dilation", lambda: [9, 1]),
]
NATIVE: list[tuple[str, Callable[[], object]]] = [
    ("x", lambda: torch.randn(2, 10, 5, 6)),
    ("x", lambda: torch.randn(1, 10, 5, 6).expand(2, 10, 5, 6)),
    ("x", lambda: torch.randn(2, 10, 5, 6, device="meta")),
    ("threads", lambda: 0),
]


@pytest.mark.parametrize("coding", ["int8", "vectors"])
@pytest.mark.parametrize(("name", "value"), COMMON + NATIVE)
def test_the_native_call_refuses(coding: str, name: str, value: Callable[[], object]) -> None:
    call: Callable[..., Tensor] = _native.int8_convolution if coding == "int8" else _native.vector_convolution
    given = arguments(coding) | {"threads": 1}
    call(**given)
    with pytest.raises(KernelError) as caught:
        call(**(given | {name: value()}))
    assert caught.value.expected
    assert caught.value.fix


PUBLIC: list[tuple[str, Callable[[], object]]] = [
    ("kernel_size", lambda: 3),
    ("kernel_size", lambda: [3]),
    ("stride", lambda: [1, 1, 1]),
    ("stride", lambda: None),
    ("padding", lambda: "same"),
    ("dilation", lambda: [1.0, 1.0]),
    ("activation", lambda: 3),
    ("x", lambda: torch.nested.as_nested_tensor([torch.randn(10, 5, 6)], layout=torch.jagged)),
]


@pytest.mark.parametrize("coding", ["int8", "vectors"])
@pytest.mark.parametrize(("name", "value"), COMMON + PUBLIC)
def test_the_public_call_refuses(coding: str, name: str, value: Callable[[], object]) -> None:
    call: Callable[..., Tensor] = int8_convolution if coding == "int8" else vector_convolution
    with pytest.raises(KernelError) as caught:
        call(**(arguments(coding) | {name: value()}))
    assert caught.value.expected


@pytest.mark.parametrize("name", ["x", "bias"])
def test_a_gradient_is_refused_and_no_grad_lifts_it(name: str) -> None:
    given = arguments("int8")
    given[name].requires_grad_()
    with pytest.raises(KernelError, match="int8_convolution: an input requires a gradient"):
        int8_convolution(**given)
    with torch.no_grad():
        assert not int8_convolution(**given).requires_grad


def test_images_that_cannot_be_held_are_an_error() -> None:
    packed, scales = pack_int8_convolution(torch.randn(2**15, 1, 1, 1))
    with pytest.raises(KernelError, match="y: cannot be allocated"):
        int8_convolution(torch.ones(2**22, 1, 1, 1), packed, scales, kernel_size=(1, 1), padding=(4096, 4096))


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (torch.randn(3, 4), "weight: has shape"),
        (torch.randn(3, 4, 5), "weight: has shape"),
        (torch.randn(3, 0, 1, 1), "weight: has shape"),
        (torch.ones(3, 4, 1, 1, dtype=torch.int8), "weight: has shape"),
        (torch.full((1, 1, 1, 1), float("nan")), "NaN or infinity"),
        (torch.full((1, 1, 1, 1), float("inf")), "NaN or infinity"),
        (torch.zeros(1, 1, 1, 1).expand(1, MAX_IN_FEATURES // 4, 1, 5), "sum of 163840 products"),
    ],
)
def test_weights_that_cannot_be_packed(weight: Tensor, match: str) -> None:
    with pytest.raises(KernelError, match=match) as caught:
        pack_int8_convolution(weight)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("place", "change", "match"),
    [
        (0, lambda codes: codes.int(), "codes: has shape"),
        (0, lambda codes: codes[0], "codes: has shape"),
        (0, lambda codes: codes[:, :0], "codes: has shape"),
        (0, lambda codes: codes - 8, "codes: a value is out of range"),
        (0, lambda codes: codes + 8, "codes: a value is out of range"),
        (0, lambda codes: codes.expand(20, 6, 10)[:, [0] * 6000].repeat(1, 1, 3), "codes: an output is the sum"),
        (1, lambda scales: scales.int(), "scales: has shape"),
        (1, lambda scales: scales[1:], "scales: has shape"),
        (1, lambda scales: scales + 16, "scales: a value is out of range"),
        (2, lambda gammas: gammas.double(), "gammas: has shape"),
        (2, lambda gammas: gammas[None], "gammas: has shape"),
        (2, lambda gammas: gammas / 0, "gammas: holds NaN or infinity"),
    ],
)
def test_codes_that_cannot_be_packed(place: int, change: Callable[[Tensor], Tensor], match: str) -> None:
    given = list(codes_of())
    given[place] = change(given[place])
    if "sum" in match:
        given[1] = torch.zeros(*given[0].shape[:2], 2, dtype=torch.uint8)
    with pytest.raises(KernelError, match=match) as caught:
        pack_vector_convolution(*given)
    assert caught.value.fix
