"""A program that needs no second trace gives the graph that decomposing it gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from architectures import ARCHITECTURES, build, example
from taut.graph import Graph, Interpreter, capture
from taut.graph import _capture as capturing

# With writes in place, control flow, data-dependent sizes or a product that einsum writes.
TRACED_AGAIN = {"attention", "branching", "detector", "encoder", "loop_lstm", "resnet"}


def decompositions(monkeypatch: pytest.MonkeyPatch) -> list[ExportedProgram]:
    """The programs that are traced a second time from here on."""
    traced: list[ExportedProgram] = []
    plain = capturing._decomposed
    monkeypatch.setattr(capturing, "_decomposed", lambda program: traced.append(program) or plain(program))
    return traced


def both(model: nn.Module, inputs: tuple[Any, ...], dynamic: Any, monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graph without and with a second trace."""
    graph = capture(model, inputs, dynamic_shapes=dynamic)
    with monkeypatch.context() as patch:
        patch.setattr(capturing, "is_settled", lambda _: False)
        return [graph, capture(model, inputs, dynamic_shapes=dynamic)]


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_which_architectures_are_traced_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = decompositions(monkeypatch)
    capture(build(name), example(name), dynamic_shapes=ARCHITECTURES[name].dynamic_shapes)
    assert len(traced) == (name in TRACED_AGAIN)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - TRACED_AGAIN))
def test_the_graph_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = example(name)
    found, wanted = both(build(name), inputs, ARCHITECTURES[name].dynamic_shapes, monkeypatch)
    assert operators(found) == operators(wanted)
    assert found.symbols == wanted.symbols
    assert found.guards == wanted.guards
    assert [found.value_type(ref) for ref in found.output_refs] == [
        wanted.value_type(ref) for ref in wanted.output_refs
    ]
    torch.testing.assert_close(Interpreter(found)(*inputs), Interpreter(wanted)(*inputs), rtol=0, atol=0)


class Written(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *xs: Tensor) -> Any:
        return self.function(*xs)


SETTLED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "reshapes": lambda x, y: x.flatten(1).unflatten(1, (2, -1)).reshape(x.shape[0], -1),
    "flattened to a vector of one": lambda x, y: x.sum().flatten(),
    "expanded": lambda x, y: x[:1].expand_as(y) + y,
    "another dtype": lambda x, y: x.to(torch.float64) + y.to(torch.float32),
    "made contiguous": lambda x, y: (x.transpose(1, 2).contiguous(), y.contiguous()),
    "a size as a number": lambda x, y: x / x.shape[0] + y.reshape(x.shape[0], 4, 3),
    "several results": lambda x, y: torch.topk(x, 2)[0] + y.max(-1, keepdim=True).values,
    "dropout": lambda x, y: nn.functional.dropout(x, 0.5, training=False) @ y.transpose(1, 2),
}


@pytest.mark.parametrize("name", SETTLED)
def test_composites_are_expanded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = decompositions(monkeypatch)
    model = Written(SETTLED[name])
    inputs = torch.randn(3, 4, 3), torch.randn(3, 4, 3)
    graph = capture(model, inputs, dynamic_shapes=(({0: Dim("batch")},) * 2,))
    assert not traced
    for size in (2, 3, 7):
        inputs = torch.randn(size, 4, 3), torch.randn(size, 4, 3)
        torch.testing.assert_close(Interpreter(graph)(*inputs), model(*inputs))


UNSETTLED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "writes in place": lambda x, y: x.clone().relu_() + y,
    "a size that no input has": lambda x, y: x.flatten(0, 1) + y.reshape(-1, 3),
    "a size that data decides": lambda x, y: x.flatten()[y.flatten().nonzero().squeeze(1)],
    "operators that are decomposed": lambda x, y: torch.einsum("bij,bkj->bik", x, y),
    "a dtype with options": lambda x, y: x.to(torch.float64, copy=True) + y,
}


@pytest.mark.parametrize("name", UNSETTLED)
def test_others_are_traced_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = decompositions(monkeypatch)
    model = Written(UNSETTLED[name])
    inputs = torch.randn(3, 4, 3), torch.randn(3, 4, 3)
    graph = capture(model, inputs, dynamic_shapes=(({0: Dim("batch")},) * 2,))
    assert len(traced) == 1
    inputs = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    torch.testing.assert_close(Interpreter(graph)(*inputs), model(*inputs))
