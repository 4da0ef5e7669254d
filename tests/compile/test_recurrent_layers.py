"""Recurrent layers of a captured model run as kernels of the machine."""

import pytest
import torch
from torch import Tensor, nn

from taut.compile._program import lower
from taut.graph import capture
from taut.runtime import load

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}


class Layer(nn.Module):
    def __init__(self, cell: str, layers: int, bidirectional: bool, bias: bool) -> None:
        super().__init__()
        self.layer = CELLS[cell](6, 20, layers, bidirectional=bidirectional, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, state = self.layer(x)
        return (y, *state) if isinstance(state, tuple) else (y, state)


@pytest.mark.parametrize(
    ("cell", "layers", "bidirectional", "bias"),
    [("lstm", 2, True, True), ("gru", 1, True, False), ("rnn_tanh", 2, False, True)],
)
def test_every_length_and_batch(cell: str, layers: int, bidirectional: bool, bias: bool) -> None:
    torch.manual_seed(0)
    module = Layer(cell, layers, bidirectional, bias).eval()
    dynamic = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    program = lower(capture(module, (torch.zeros(5, 3, 6),), dynamic_shapes=dynamic)).program
    assert not program.fallbacks
    assert {kernel.name for kernel in program.kernels} <= {cell, f"{cell}_reverse"}
    session = load(program).session(poison=True)
    for sizes in ((2, 2), (3, 5), (7, 2), (33, 4)):
        x = torch.randn(*sizes, 6)
        with torch.no_grad():
            expected = module(x)
        for found, value in zip(session(x), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)


def test_what_the_kernels_cannot_do_runs_on_aten() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(6, 20, proj_size=7)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0]

    module = Projected().eval()
    program = lower(capture(module, (torch.zeros(5, 3, 6),))).program
    x = torch.randn(5, 3, 6)
    with torch.no_grad():
        torch.testing.assert_close(load(program).session()(x)[0], module(x))
