"""The layers of torch, in float32, on every instruction set."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from taut.errors import KernelError
from taut.kernels import PackedRecurrent, available_isas, force, pack_recurrent, recurrent

CELLS = ("lstm", "gru", "tanh", "relu")


def layer(cell: str, inputs: int, hidden: int, *, bias: bool = True) -> nn.RNNBase:
    torch.manual_seed(inputs * 1000 + hidden)
    if cell == "lstm":
        return nn.LSTM(inputs, hidden, bias=bias)
    if cell == "gru":
        return nn.GRU(inputs, hidden, bias=bias)
    return nn.RNN(inputs, hidden, nonlinearity=cell, bias=bias)


def pack(cell: str, module: nn.RNNBase, suffix: str = "l0") -> PackedRecurrent:
    parameters = dict(module.named_parameters())
    names = ("weight_ih_", "weight_hh_", "bias_ih_", "bias_hh_")
    weight_ih, weight_hh, *biases = (parameters.get(name + suffix) for name in names)
    assert weight_ih is not None
    assert weight_hh is not None
    return pack_recurrent(cell, weight_ih, weight_hh, *biases)


@torch.no_grad()
def reference(module: nn.RNNBase, x: Tensor, h0: Tensor | None, c0: Tensor | None) -> tuple[Tensor, ...]:
    if isinstance(module, nn.LSTM):
        state = None if h0 is None or c0 is None else (h0[None], c0[None])
        y, (h, c) = module(x, state)
        return y, h[0], c[0]
    y, h = module(x, None if h0 is None else h0[None])
    return y, h[0]


sizes = st.integers(1, 40)


@given(
    cell=st.sampled_from(CELLS),
    steps=st.integers(1, 9),
    batch=st.integers(1, 14),
    inputs=sizes,
    hidden=st.one_of(sizes, st.sampled_from([63, 64, 65, 130])),
    bias=st.booleans(),
    initial=st.booleans(),
    reverse=st.booleans(),
)
def test_equals_torch_with_the_same_bits_on_every_isa(
    cell: str, steps: int, batch: int, inputs: int, hidden: int, bias: bool, initial: bool, reverse: bool
) -> None:
    module = layer(cell, inputs, hidden, bias=bias)
    x = torch.randn(steps, batch, inputs)
    h0 = torch.randn(batch, hidden) if initial else None
    c0 = torch.randn(batch, hidden) if initial and cell == "lstm" else None
    expected = reference(module, x.flip(0) if reverse else x, h0, c0)
    packed = pack(cell, module)
    runs = []
    for name in available_isas():
        with force(name):
            runs.append(recurrent(x, packed, h0, c0, reverse=reverse))
    y, h, c = runs[0]
    torch.testing.assert_close(y.flip(0) if reverse else y, expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(h, expected[1], rtol=1e-5, atol=1e-5)
    if c is not None:
        torch.testing.assert_close(c, expected[2], rtol=1e-5, atol=1e-5)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True) if a is not None and b is not None)


@pytest.mark.parametrize("cell", CELLS)
def test_long_sequence_and_large_layer(cell: str) -> None:
    module = layer(cell, 60, 200)
    x = torch.randn(130, 1, 60)
    y, h, _ = recurrent(x, pack(cell, module))
    expected = reference(module, x, None, None)
    torch.testing.assert_close(y, expected[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(y[-1], h)


@pytest.mark.parametrize("cell", CELLS)
def test_bits_do_not_depend_on_batch_or_length(cell: str, isa: str) -> None:
    packed = pack(cell, layer(cell, 20, 48))
    x = torch.randn(7, 9, 20)
    together, _, _ = recurrent(x, packed)
    for row in range(9):
        alone, _, _ = recurrent(x[:4, row : row + 1], packed)
        assert torch.equal(alone, together[:4, row : row + 1]), isa


@pytest.mark.parametrize("cell", CELLS)
def test_bits_do_not_depend_on_threads(cell: str, two_threads: None) -> None:
    packed = pack(cell, layer(cell, 30, 300))
    x = torch.randn(6, 2, 30)
    both, h, c = recurrent(x, packed)
    torch.set_num_threads(1)
    one, one_h, one_c = recurrent(x, packed)
    assert torch.equal(both, one)
    assert torch.equal(h, one_h)
    assert c is None or (one_c is not None and torch.equal(c, one_c))


@pytest.mark.parametrize("cell", CELLS)
def test_state_carries_over(cell: str) -> None:
    packed = pack(cell, layer(cell, 10, 33))
    x = torch.randn(8, 3, 10)
    whole, _, _ = recurrent(x, packed)
    first, h, c = recurrent(x[:5], packed)
    second, _, _ = recurrent(x[5:], packed, h, c)
    assert torch.equal(torch.cat([first, second]), whole)


@pytest.mark.parametrize("cell", CELLS)
def test_no_steps_returns_the_initial_state(cell: str) -> None:
    packed = pack(cell, layer(cell, 4, 5))
    state = torch.randn(2, 5)
    y, h, c = recurrent(torch.empty(0, 2, 4), packed, state, state if cell == "lstm" else None)
    assert y.shape == (0, 2, 5)
    assert torch.equal(h, state)
    assert c is None or torch.equal(c, state)
    _, h, _ = recurrent(torch.empty(0, 2, 4), packed)
    assert torch.equal(h, torch.zeros(2, 5))


def test_no_rows(isa: str) -> None:
    y, h, _ = recurrent(torch.empty(3, 0, 4), pack("lstm", layer("lstm", 4, 5)))
    assert y.shape == (3, 0, 5), isa
    assert h.shape == (0, 5)


def test_both_directions_are_two_calls() -> None:
    module = nn.LSTM(12, 20, bidirectional=True)
    x = torch.randn(6, 2, 12)
    forward, _, _ = recurrent(x, pack("lstm", module))
    backward, _, _ = recurrent(x, pack("lstm", module, "l0_reverse"), reverse=True)
    with torch.no_grad():
        expected, _ = module(x)
    torch.testing.assert_close(torch.cat([forward, backward], dim=-1), expected, rtol=1e-5, atol=1e-5)


def test_saturated_gates_and_nan(isa: str) -> None:
    module = layer("lstm", 1, 16)
    packed = pack("lstm", module)
    x = torch.tensor([1e30, -1e30, float("nan")])[None, :, None].expand(2, 3, 1).contiguous()
    y, _, _ = recurrent(x, packed)
    assert bool(y[:, :2].isfinite().all()), isa
    assert bool(y[:, 2].isnan().all())


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_activations_are_accurate(cell: str, isa: str) -> None:
    # With the other weights zero the layer is its activation: tanh(x), and sigmoid(x) times tanh of a constant.
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.logspace(-30, 1, 500)])
    gates = 4 if cell == "lstm" else 1
    weight = torch.zeros(gates, 1)
    bias = torch.zeros(gates)
    if cell == "lstm":
        weight[3], bias[0], bias[2] = 1.0, 100.0, 100.0
    else:
        weight[0] = 1.0
    y, _, _ = recurrent(x.view(1, -1, 1), pack_recurrent(cell, weight, torch.zeros(gates, 1), bias))
    wide = x.double()
    expected = wide.tanh() if cell == "tanh" else wide.sigmoid() * torch.tensor(1.0, dtype=torch.float64).tanh()
    error = (y.flatten().double() - expected).abs()
    assert float(error.max()) < 2e-7, isa
    assert float((error / expected.abs()).max()) < 1e-6


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda: pack_recurrent("mgu", torch.zeros(4, 1), torch.zeros(4, 1)), "cell"),
        (lambda: pack_recurrent("lstm", torch.zeros(8, 3), torch.zeros(8, 3)), "weight_hh"),
        (lambda: pack_recurrent("lstm", torch.zeros(8, 3), torch.zeros(8, 2), torch.zeros(7)), "bias_ih"),
        (lambda: pack_recurrent("lstm", torch.zeros(8, 3), torch.full((8, 2), float("inf"))), "NaN or infinity"),
        (lambda: recurrent(torch.zeros(2, 3), pack("lstm", layer("lstm", 3, 2))), "x: has shape"),
        (lambda: recurrent(torch.zeros(2, 1, 4), pack("lstm", layer("lstm", 3, 2))), "input_weights"),
        (lambda: recurrent(torch.zeros(2, 1, 3).double(), pack("lstm", layer("lstm", 3, 2))), "x"),
        (lambda: recurrent(torch.zeros(2, 1, 3), pack("lstm", layer("lstm", 3, 2)), torch.zeros(2, 2)), "h0"),
    ],
)
def test_refusals(change, text: str) -> None:
    with pytest.raises(KernelError, match=text):
        change()
