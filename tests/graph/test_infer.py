"""Types after a rewrite: new dtypes and layouts, the same symbolic shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from taut.errors import GraphError
from taut.graph import Builder, Graph, Guard, Interpreter, Node, Ref, SymbolRange, TensorType, infer_types, rewrite
from taut.graph._infer import example_sizes
from taut.graph._symbols import symbol


def cast_constants(graph: Graph, dtype: torch.dtype) -> Graph:
    """Constants and floating-point inputs in another dtype, and nothing else done about it."""

    def visit(node: Node, builder: Builder) -> Ref | None:
        constant = graph.constant(Ref(node.id))
        if constant is not None and constant.is_floating_point():
            return builder.constant(constant.to(dtype), str(node.args[1]))
        if node.op == "input" and node.type.dtype is torch.float32:
            return builder.input(str(node.args[0]), TensorType(node.type.shape, dtype))
        return None

    return rewrite(graph, visit)


@pytest.mark.parametrize("name", ["resnet", "attention", "loop_lstm", "branching"])
def test_a_cast_of_weights_and_inputs_reaches_every_value(name: str, captured: Callable[[str], Graph]) -> None:
    def dtypes(graph: Graph) -> set[torch.dtype]:
        own = {kind.dtype for node in graph.nodes for kind in node.outputs if isinstance(kind, TensorType)}
        return own.union(*(dtypes(region) for node in graph.nodes for region in node.regions))

    graph = captured(name)
    cast = infer_types(cast_constants(graph, torch.float64))
    assert torch.float32 not in dtypes(cast)
    shapes = [[kind.shape for kind in node.outputs if isinstance(kind, TensorType)] for node in cast.nodes]
    assert shapes == [[kind.shape for kind in node.outputs if isinstance(kind, TensorType)] for node in graph.nodes]


def test_a_layout_reaches_the_values_after_it(captured: Callable[[str], Graph]) -> None:
    graph = captured("inception")

    def visit(node: Node, builder: Builder) -> Ref | None:
        constant = graph.constant(Ref(node.id))
        if constant is None or constant.dim() != 4 or constant.shape[2] == 1:
            return None
        return builder.constant(constant.to(memory_format=torch.channels_last), str(node.args[1]))

    made = infer_types(rewrite(graph, visit))
    x = torch.randn(2, 6, 7, 7)
    torch.testing.assert_close(Interpreter(made)(x), Interpreter(graph)(x))
    convolutions = [node for node in made.nodes if node.op == "aten.conv2d.default"]
    assert any(node.type.layout == "channels_last" for node in convolutions)


def test_an_operator_that_refuses_its_inputs_is_named() -> None:
    builder = Builder()
    kind = TensorType((symbol("s0"), 4), torch.float32)
    x = builder.input("x", kind)
    weight = builder.constant(torch.ones(4, 4, dtype=torch.bfloat16), "weight")
    made = builder.add("aten.linear.default", x, weight, outputs=kind, source="model.py:9")
    graph = builder.finish(made, symbols={"s0": SymbolRange(2, None)})
    with pytest.raises(GraphError, match=r"aten.linear.default \(model.py:9\) refuses its inputs"):
        infer_types(graph)


def test_a_wrong_recorded_shape_is_found() -> None:
    builder = Builder()
    s0 = symbol("s0")
    x = builder.input("x", TensorType((s0, 4), torch.float32))
    made = builder.add("aten.sum.dim_IntList", x, (1,), outputs=TensorType((s0, 4), torch.float32))
    with pytest.raises(GraphError, match=r"aten.sum.dim_IntList gives the shape"):
        infer_types(builder.finish(made, symbols={"s0": SymbolRange(2, None)}))


def test_example_sizes_keep_ranges_and_guards() -> None:
    s0, s1 = symbol("s0"), symbol("s1")
    ranges = {"s0": SymbolRange(2, 64), "s1": SymbolRange(5, None), "s2": SymbolRange(7, 7)}
    guards = (Guard((s0 % 8).equals(0) or s0 % 8 <= 0), Guard(s0 > s1))  # pyright: ignore
    sizes = example_sizes(Graph((), (), None, symbols=ranges, guards=guards))
    assert sizes["s0"] % 8 == 0
    assert 5 <= sizes["s1"] < sizes["s0"] <= 64
    assert sizes["s2"] == 7


def test_guards_that_nothing_satisfies_are_an_error() -> None:
    guards = (Guard(symbol("s0") > 9),)  # pyright: ignore
    with pytest.raises(GraphError, match="no sizes were found"):
        example_sizes(Graph((), (), None, symbols={"s0": SymbolRange(2, 9)}, guards=guards))
