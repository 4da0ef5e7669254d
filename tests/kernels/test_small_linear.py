"""A linear layer for few rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import KernelError
from taut.kernels import available_isas, force, pack_small_linear, small_linear

ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


@given(
    rows=st.integers(0, 33),
    inputs=st.integers(0, 70),
    outputs=st.one_of(st.integers(1, 20), st.sampled_from([63, 64, 65, 150])),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    bias=st.booleans(),
)
def test_equals_torch_with_the_same_bits_on_every_isa(
    rows: int, inputs: int, outputs: int, activation: str, bias: bool
) -> None:
    weight = torch.randn(outputs, inputs)
    offset = torch.randn(outputs) if bias else None
    x = torch.randn(rows, inputs)
    packed = pack_small_linear(weight, offset)
    results = []
    for name in available_isas():
        with force(name):
            results.append(small_linear(x, *packed, outputs, activation))
    expected = ACTIVATIONS[activation](torch.nn.functional.linear(x, weight, offset))
    torch.testing.assert_close(results[0], expected, rtol=1e-5, atol=3e-5)
    assert all(torch.equal(result, results[0]) for result in results)


def test_bits_do_not_depend_on_rows(isa: str) -> None:
    packed = pack_small_linear(torch.randn(150, 90), torch.randn(150))
    x = torch.randn(13, 90)
    together = small_linear(x, *packed, 150)
    for row in range(13):
        assert torch.equal(small_linear(x[row : row + 1], *packed, 150), together[row : row + 1]), isa


def test_refusals() -> None:
    packed = pack_small_linear(torch.randn(5, 6))
    with pytest.raises(KernelError, match="activation"):
        small_linear(torch.randn(1, 6), *packed, 5, "gelu")
    with pytest.raises(KernelError, match="packed"):
        small_linear(torch.randn(1, 7), *packed, 5)
    with pytest.raises(KernelError, match="NaN or infinity"):
        pack_small_linear(torch.full((5, 6), float("nan")))
