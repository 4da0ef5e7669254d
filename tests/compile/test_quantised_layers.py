"""Quantised layers keep their bits in a compiled program, and run without torch."""

import pytest
import torch
from torch import Tensor, nn

from taut.compile import compile_model
from taut.graph import Interpreter, capture
from taut.transform import get_pass

T = torch.export.Dim("T", min=2, max=512)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(96, 130)
        self.narrow = nn.Linear(130, 72, bias=False)
        self.last = nn.Linear(72, 80)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.last(nn.functional.gelu(self.narrow(torch.relu(self.wide(x))))))


@pytest.mark.parametrize("name", ["int8_linear", "w4a8_linear", "w4a4_linear"])
def test_bits_are_those_of_the_graph(name: str) -> None:
    graph = capture(Layers().eval(), (torch.randn(2, 8, 96),), dynamic_shapes=({1: T},))
    quantised = get_pass(name).apply(graph).graph
    compiled = compile_model(quantised)
    assert not compiled.report.fallbacks
    for length in (2, 3, 40):
        x = torch.randn(2, length, 96)
        assert torch.equal(compiled(x), Interpreter(quantised)(x))
