"""Arguments are checked before a pointer is used, on both ways of reading tensors."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

from taut.errors import KernelError
from taut.kernels import MAX_IN_FEATURES, int8_linear, pack_int8_linear
from taut.kernels._load import _native


@pytest.fixture(params=["exchange", "attributes"])
def reading(request: pytest.FixtureRequest) -> Iterator[str]:
    """Through DLPack's exchange table, and through tensor attributes where torch had none."""
    assert _native.bind_tensor_type(torch.Tensor, request.param == "exchange") == (request.param == "exchange")
    yield request.param
    _native.bind_tensor_type(torch.Tensor, True)


def arguments() -> dict[str, Any]:
    packed, scales = pack_int8_linear(torch.randn(20, 10))
    return {
        "x": torch.randn(3, 10),
        "packed": packed,
        "scales": scales,
        "bias": torch.randn(20),
        "activation": "none",
        "threads": 1,
    }


def test_both_ways_of_reading_give_the_same(reading: str) -> None:
    given = arguments()
    x, packed, scales, bias = (given[name] for name in ("x", "packed", "scales", "bias"))
    for like in (x, x.to(torch.bfloat16), x[0], x[None], x[:0]):
        out = _native.int8_linear(**{**given, "x": like, "bias": torch.nn.Parameter(bias)})
        assert (out.shape, out.dtype) == ((*like.shape[:-1], 20), like.dtype)
        assert out.is_contiguous()
        assert torch.equal(out, int8_linear(like, packed, scales, bias))


def test_an_output_outlives_its_inputs_and_is_an_ordinary_tensor(reading: str) -> None:
    outputs = [_native.int8_linear(**arguments()) for _ in range(50)]
    copies = [output.clone() for output in outputs]
    assert all(torch.equal(output, copy) for output, copy in zip(outputs, copies, strict=True))
    assert torch.equal(outputs[0].add_(1).view(20, 3), (copies[0] + 1).view(20, 3))


def test_what_no_kernel_is_registered_for_is_refused_as_well() -> None:
    packed, scales = pack_int8_linear(torch.randn(20, 10))
    nested = torch.nested.as_nested_tensor([torch.randn(2, 10)], layout=torch.jagged)
    with pytest.raises(KernelError, match="x: is a nested"):
        int8_linear(nested, packed, scales)
    with pytest.raises(KernelError, match="activation: is a int"):
        int8_linear(torch.randn(3, 10), packed, scales, activation=3)  # pyright: ignore[reportArgumentType]


def misaligned() -> torch.Tensor:
    return torch.frombuffer(bytearray(121), dtype=torch.float32, offset=1, count=30).view(3, 10)


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(3, 10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", lambda: "text"),
        ("x", lambda: None),
        ("x", lambda: torch.tensor(1.0)),
        ("x", lambda: torch.randn(3, 9)),
        ("x", lambda: torch.randn(3, 14)),
        ("x", lambda: torch.randn(3, 10).double()),
        ("x", lambda: torch.zeros(3, 10, dtype=torch.int32)),
        ("x", lambda: torch.zeros(3, 10, dtype=torch.complex64)),
        ("x", lambda: torch.zeros(3, 10, dtype=torch.bool)),
        ("x", lambda: torch.randn(3, 20)[:, ::2]),
        ("x", lambda: torch.randn(1, 10).expand(3, 10)),
        ("x", lambda: torch.randn(1, MAX_IN_FEATURES + 1)),
        ("x", lambda: torch.zeros([1] * 17 + [10])),
        ("x", lambda: torch.randn(3, 10, device="meta")),
        ("x", lambda: torch.randn(3, 10).to_sparse()),
        ("x", fake),
        ("x", misaligned),
        ("packed", lambda: torch.zeros(2, 5, 16, 4)),
        ("packed", lambda: torch.zeros(2, 5, 16, 4, dtype=torch.uint8)),
        ("packed", lambda: torch.zeros(1, 5, 16, 4, dtype=torch.int8)),
        ("packed", lambda: torch.zeros(2, 4, 16, 4, dtype=torch.int8)),
        ("packed", lambda: torch.zeros(2, 5, 16, 4, dtype=torch.int8)),
        ("packed", lambda: torch.zeros(2, 5, 64, dtype=torch.int8)),
        ("packed", lambda: torch.zeros(2, 5, 4, 16, dtype=torch.int8).transpose(2, 3)),
        ("scales", lambda: torch.ones(33)),
        ("scales", lambda: torch.ones(20, 1)),
        ("scales", lambda: torch.ones(20).double()),
        ("scales", lambda: torch.tensor(1.0)),
        ("scales", lambda: torch.ones(40)[::2]),
        ("bias", lambda: torch.ones(19)),
        ("bias", lambda: torch.ones(20, dtype=torch.bfloat16)),
        ("bias", lambda: torch.ones(40)[::2]),
        ("activation", lambda: "GELU"),
        ("activation", lambda: ""),
        ("threads", lambda: 0),
    ],
)
def test_the_native_call_refuses(reading: str, name: str, value: Callable[[], object]) -> None:
    with pytest.raises(KernelError) as caught:
        _native.int8_linear(**{**arguments(), name: value()})
    assert caught.value.expected
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", torch.randn(3, 9)),
        ("x", torch.randn(3, 10).double()),
        ("x", torch.randn(3, 10).numpy()),
        ("x", torch.randn(3, 10).to_sparse()),
        ("packed", None),
        ("packed", torch.zeros(1, 5, 16, 4, dtype=torch.int8)),
        ("scales", torch.ones(20, 1)),
        ("bias", torch.ones(19)),
        ("activation", "silu"),
    ],
)
def test_the_public_call_refuses(name: str, value: object) -> None:
    given = {name: value for name, value in arguments().items() if name != "threads"}
    with pytest.raises(KernelError, match=name if name != "x" else "x|packed"):
        int8_linear(**{**given, name: value})


@pytest.mark.parametrize("name", ["x", "bias"])
def test_a_gradient_is_refused_and_no_grad_lifts_it(name: str) -> None:
    given = {name: value for name, value in arguments().items() if name != "threads"}
    given[name].requires_grad_()
    with pytest.raises(KernelError, match="gradient"):
        int8_linear(**given)
    with torch.no_grad():
        assert not int8_linear(**given).requires_grad
