"""vector_linear and its packing check their arguments before a pointer is used."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from taut.errors import KernelError
from taut.kernels import MAX_IN_FEATURES, pack_vector_linear, vector_linear
from taut.kernels._load import _native


@pytest.fixture(params=["exchange", "attributes"])
def reading(request: pytest.FixtureRequest) -> Iterator[str]:
    """Through DLPack's exchange table, and through tensor attributes where torch had none."""
    _native.bind_tensor_type(torch.Tensor, request.param == "exchange")
    yield request.param
    _native.bind_tensor_type(torch.Tensor, True)


def weight() -> dict[str, Any]:
    return {
        "codes": torch.randint(-7, 8, (20, 40), dtype=torch.int8),
        "scales": torch.randint(0, 16, (20, 3), dtype=torch.uint8),
        "gammas": torch.rand(20),
    }


def arguments() -> dict[str, Any]:
    given = weight()
    return {
        "x": torch.randn(3, 40),
        "packed": pack_vector_linear(**given),
        "gammas": given["gammas"],
        "bias": torch.randn(20),
        "activation": "none",
        "inputs": "vsq4",
    }


def misaligned() -> torch.Tensor:
    return torch.frombuffer(bytearray(481), dtype=torch.float32, offset=1, count=120).view(3, 40)


def test_both_ways_of_reading_give_the_same(reading: str) -> None:
    given = arguments()
    for like in (given["x"], given["x"].to(torch.bfloat16), given["x"][0], given["x"][:0]):
        out = _native.vector_linear(**{**given, "x": like}, threads=1)
        assert torch.equal(out, vector_linear(**{**given, "x": like}))


BLOCK_BYTES = 64 + 4 * 128 + 128


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", lambda: "text"),
        ("x", lambda: torch.tensor(1.0)),
        ("x", lambda: torch.randn(3, 39)),
        ("x", lambda: torch.randn(3, 41)),
        ("x", lambda: torch.randn(3, 200)),
        ("x", lambda: torch.randn(3, 40).double()),
        ("x", lambda: torch.randn(3, 80)[:, ::2]),
        ("x", lambda: torch.randn(1, MAX_IN_FEATURES + 1)),
        ("x", lambda: torch.randn(3, 40, device="meta")),
        ("x", misaligned),
        ("packed", lambda: torch.zeros(2, BLOCK_BYTES)),
        ("packed", lambda: torch.zeros(2, BLOCK_BYTES, dtype=torch.uint8)),
        ("packed", lambda: torch.zeros(1, BLOCK_BYTES, dtype=torch.int8)),
        ("packed", lambda: torch.zeros(2, BLOCK_BYTES - 1, dtype=torch.int8)),
        ("packed", lambda: torch.zeros(2, BLOCK_BYTES, dtype=torch.int8)),
        ("packed", lambda: torch.zeros(BLOCK_BYTES, 2, dtype=torch.int8).T),
        ("gammas", lambda: torch.ones(33)),
        ("gammas", lambda: torch.ones(20, 1)),
        ("gammas", lambda: torch.ones(20).double()),
        ("gammas", lambda: torch.ones(40)[::2]),
        ("bias", lambda: torch.ones(19)),
        ("bias", lambda: torch.ones(20, dtype=torch.bfloat16)),
        ("activation", lambda: "silu"),
        ("inputs", lambda: "int4"),
        ("inputs", lambda: ""),
        ("threads", lambda: 0),
    ],
)
def test_the_native_call_refuses(reading: str, name: str, value: Callable[[], object]) -> None:
    with pytest.raises(KernelError) as caught:
        _native.vector_linear(**{**arguments(), "threads": 1, name: value()})
    assert caught.value.expected
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", torch.randn(3, 39)),
        ("x", torch.randn(3, 40).numpy()),
        ("x", torch.randn(3, 40).to_sparse()),
        ("packed", None),
        ("gammas", torch.ones(20, 1)),
        ("bias", torch.ones(19)),
        ("activation", 3),
        ("inputs", None),
        ("inputs", "vsq8"),
    ],
)
def test_the_public_call_refuses(name: str, value: object) -> None:
    with pytest.raises(KernelError, match=name if name != "x" else "x|packed"):
        vector_linear(**{**arguments(), name: value})


@pytest.mark.parametrize("name", ["x", "bias"])
def test_a_gradient_is_refused_and_no_grad_lifts_it(name: str) -> None:
    given = arguments()
    given[name].requires_grad_()
    with pytest.raises(KernelError, match="gradient"):
        vector_linear(**given)
    with torch.no_grad():
        assert not vector_linear(**given).requires_grad


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("codes", torch.zeros(40, dtype=torch.int8), "shape"),
        ("codes", torch.zeros(20, 40), "float32"),
        ("codes", torch.full((20, 40), 8, dtype=torch.int8), "8"),
        ("codes", torch.full((20, 40), -8, dtype=torch.int8), "-8"),
        ("codes", torch.full((20, 40), -128, dtype=torch.int8), "-128"),
        ("codes", torch.zeros(1, MAX_IN_FEATURES + 1, dtype=torch.int8), "input features"),
        ("codes", [1, 2], "list"),
        ("scales", torch.zeros(20, 2, dtype=torch.uint8), r"\(20, 2\)"),
        ("scales", torch.zeros(20, 3), "float32"),
        ("scales", torch.full((20, 3), 16, dtype=torch.uint8), "16"),
        ("gammas", torch.zeros(19), r"\(19,\)"),
        ("gammas", torch.zeros(20).double(), "float64"),
        ("gammas", torch.full((20,), float("nan")), "NaN"),
    ],
)
def test_packing_refuses(name: str, value: object, message: str) -> None:
    with pytest.raises(KernelError, match=f"{name}.*{message}") as caught:
        pack_vector_linear(**{**weight(), name: value})
    assert caught.value.expected
    assert caught.value.fix
