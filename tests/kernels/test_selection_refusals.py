"""Arguments that do not fit are refused before memory is touched; the operators keep what torch asks of them."""

from collections.abc import Callable

import pytest
import torch

from taut.errors import KernelError
from taut.kernels import (
    Moments,
    accumulate_and_select_top_k,
    accumulate_moments,
    decode_indices,
    decode_values,
    dequantise_add,
    encode_indices,
    encode_values,
    exceedance_moments,
    pack_signs,
    quantise_stochastic,
    scatter_add,
    select_above,
    top_k,
    unpack_majority,
)

X = torch.randn(40)
GRID = torch.randn(8, 8).T
INT = torch.arange(5, dtype=torch.int32)
BYTES = torch.zeros(5, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: top_k([1.0], 1), "x: is a list"),  # pyright: ignore[reportArgumentType]
        (lambda: top_k(X.double(), 1), "float32"),
        (lambda: top_k(GRID, 1), "x: is not contiguous"),
        (lambda: top_k(X, 41), "k: got 41"),
        (lambda: top_k(X, -1), "k: got -1"),
        (lambda: top_k(X, 1.5), "k: got 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: top_k(X.clone().requires_grad_(), 1), "gradient"),
        (lambda: top_k(X.to_sparse(), 1), "x: is a"),
        (lambda: accumulate_and_select_top_k(X[:39], X.clone(), 1), "gradient: has 39 elements"),
        (lambda: accumulate_and_select_top_k(X.view(8, 5).T, X.clone(), 1), "gradient: is not contiguous"),
        (lambda: accumulate_and_select_top_k(X, GRID, 1), "residual: is not contiguous"),
        (lambda: accumulate_moments(X[:39], X.clone()), "gradient: has 39"),
        (lambda: accumulate_moments(X, X.half()), "residual"),
        (lambda: exceedance_moments(X, -1.0), "threshold: got -1"),
        (lambda: exceedance_moments(X, float("nan")), "threshold: got"),
        (lambda: exceedance_moments(GRID, 1.0), "x: is not contiguous"),
        (lambda: select_above(X, float("nan"), 1), "threshold: got"),
        (lambda: select_above(X, 1.0, -1), "capacity: got -1"),
        (lambda: select_above(GRID, 1.0, 1), "residual: is not contiguous"),
        (lambda: scatter_add(X.clone(), INT.long(), X[:5]), "indices"),
        (lambda: scatter_add(X.clone(), INT, X[:4]), "indices: has 5 elements"),
        (lambda: scatter_add(GRID, INT, X[:5]), "dense: is not contiguous"),
        (lambda: scatter_add(X.clone(), INT, X[:5].half()), "values"),
        (lambda: pack_signs(GRID), "x: is not contiguous"),
        (lambda: unpack_majority(BYTES, 40), "packed: has shape"),
        (lambda: unpack_majority(BYTES[None], 41), "packed: has shape"),
        (lambda: unpack_majority(X[None], 40), "packed"),
        (lambda: unpack_majority(BYTES[None], -1), "length: got -1"),
        (lambda: unpack_majority(BYTES[None], 40, out=X[:39]), "out: has 39"),
        (lambda: unpack_majority(BYTES[None], 40, out=X.double()), "out"),
        (lambda: unpack_majority([1], 40), "packed: is a list"),  # pyright: ignore[reportArgumentType]
        (lambda: quantise_stochastic(X, 3, 0), "bits: got 3"),
        (lambda: quantise_stochastic(X, 8, -1), "seed: got -1"),
        (lambda: quantise_stochastic(X, 8, 2**63), "seed: got"),
        (lambda: dequantise_add(X.clone(), BYTES, X[:1], 8), "codes: has 5 elements"),
        (lambda: dequantise_add(X.clone(), BYTES, X[:1], 5), "bits: got 5"),
        (lambda: dequantise_add(X[:5].clone(), BYTES, X[:2], 8), "steps: has 2 elements"),
        (lambda: encode_indices(INT.long(), 10), "indices"),
        (lambda: encode_indices(INT, 2**31), "length: got"),
        (lambda: decode_indices(INT, 10), "encoded"),
        (lambda: decode_indices(BYTES, -1), "length: got -1"),
        (lambda: encode_values(X[::2]), "values: has shape"),
        (lambda: encode_values(X[0]), "values: has shape"),
        (lambda: decode_values(X, 5, torch.float32), "encoded"),
    ],
)
def test_refusals(call: Callable[[], object], text: str) -> None:
    with pytest.raises(KernelError, match=text):
        call()


def test_more_elements_than_an_index_can_name_are_refused() -> None:
    # Memory that is never touched.
    try:
        x = torch.empty(2**31)
    except RuntimeError:
        pytest.skip("this host does not promise 8 GB of memory")
    for call in (lambda: top_k(x, 1), lambda: select_above(x, 1.0, 1), lambda: pack_signs(x)):
        with pytest.raises(KernelError, match="2147483648 elements"):
            call()


def test_nothing_changes_when_an_argument_is_refused() -> None:
    residual = X.clone()
    with pytest.raises(KernelError):
        accumulate_and_select_top_k(X, residual, 41)
    with pytest.raises(KernelError):
        accumulate_moments(X[:39], residual)
    assert torch.equal(residual, X)


def test_empty_tensors() -> None:
    empty = torch.empty(0)
    assert [tensor.numel() for tensor in top_k(empty, 0)] == [0, 0]
    assert [tensor.numel() for tensor in accumulate_and_select_top_k(empty, empty, 0)] == [0, 0]
    assert accumulate_moments(empty, empty, log=True) == Moments(0, 0.0, 0.0, 0.0, 0.0, 0)
    assert exceedance_moments(empty, 1.0).count == 0
    assert select_above(empty, 1.0, 5)[2] == 0
    scatter_add(empty, empty.int(), empty)
    assert pack_signs(empty).numel() == 0
    assert unpack_majority(torch.empty(3, 0, dtype=torch.uint8), 0).numel() == 0
    assert [tensor.numel() for tensor in quantise_stochastic(empty, 4, 0)] == [0, 0]
    assert decode_indices(encode_indices(empty.int(), 0), 0).numel() == 0
    assert decode_values(encode_values(empty), 0, torch.float32).numel() == 0


def arguments() -> dict[str, tuple[object, ...]]:
    packed, steps = quantise_stochastic(X, 4, 1)
    return {
        "top_k": (X, 3),
        "accumulate_and_select_top_k": (X, X.clone(), 3),
        "accumulate_moments": (X, X.clone(), True, True),
        "exceedance_moments": (X, 0.5, True),
        "select_above": (X.clone(), 0.5, 10, True),
        "scatter_add": (X.clone(), INT, X[:5].clone(), 0.5),
        "pack_signs": (X,),
        "unpack_majority": (BYTES[None], X.clone(), 1.0),
        "quantise_stochastic": (X, 4, 1),
        "dequantise_add": (X.clone(), packed, steps, 4, 1.0),
        "encode_indices": (INT, 5),
        "decode_indices": (encode_indices(INT, 5), 5),
        "encode_values": (X,),
        "decode_values": (encode_values(X), X.numel(), torch.float32),
    }


@pytest.mark.parametrize("name", arguments())
def test_opcheck(name: str) -> None:
    operator = getattr(torch.ops.taut, name).default
    # Results of a size that data decide cannot pass the tests of autograd with static shapes.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, arguments()[name], test_utils=tests)
