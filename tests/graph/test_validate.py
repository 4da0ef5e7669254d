"""A malformed graph is refused with the node and the reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import sympy
import torch

from taut.errors import GraphError
from taut.graph import Builder, Graph, Guard, Node, Ref, ScalarType, SymbolRange, TensorType, validate
from taut.graph._policy import resolve
from taut.graph._symbols import symbol

VECTOR = TensorType((4,), torch.float32)
FLAG = ScalarType("bool")
X = Ref(0)


def graph_of(*nodes: Node, inputs: tuple[int, ...] = (0,), outputs: Any = X, **fields: Any) -> Graph:
    return Graph((Node(0, "input", ("x",), outputs=(VECTOR,)), *nodes), inputs, outputs, **fields)


def call(op: str, *args: Any, outputs: tuple[Any, ...] = (VECTOR,), **kwargs: Any) -> Node:
    return Node(1, op, args, tuple(sorted(kwargs.items())), outputs)


REGION = graph_of(call("aten.neg.default", X), outputs=(Ref(1),))
SYMBOLIC = TensorType((symbol("s0"),), torch.float32)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (graph_of(dataclasses.replace(call("aten.neg.default", X), id=2)), "%1 aten.neg.default: has the id 2"),
        (graph_of(call("aten.neg.default", Ref(1))), "uses node %1, which does not come before"),
        (graph_of(call("aten.neg.default", Ref(0, 1))), "uses output 1 of node %0"),
        (graph_of(outputs=Ref(3)), "uses node %3"),
        (graph_of(inputs=()), "lists the inputs"),
        (graph_of(inputs=(0, 0)), "lists the inputs"),
        (graph_of(Node(1, "input", ("x",), outputs=(VECTOR,)), inputs=(0, 1)), "same name"),
        (graph_of(Node(1, "input", (), outputs=(VECTOR,)), inputs=(0, 1)), "only argument is its name"),
        (graph_of(Node(1, "constant", ("abc", "w"), outputs=(VECTOR,))), "constant w is missing"),
        (
            graph_of(Node(1, "constant", ("a", "w"), outputs=(VECTOR,)), constants={"a": torch.ones(3)}),
            r"constant w is torch.float32 \(3,\)",
        ),
        (graph_of(Node(1, "constant", ("a",), outputs=(VECTOR,))), "a content hash, a name"),
        (graph_of(call("check", X, outputs=())), "a value and a message"),
        (graph_of(call("check", X, "positive")), "no outputs"),
        (graph_of(call("transmogrify", X)), "no known operator"),
        (graph_of(call("aten.relu_.default", X)), "writes to its inputs"),
        (graph_of(call("aten.neg.default", X, X)), "2 positional arguments"),
        (graph_of(call("aten.neg.default")), "argument self is missing"),
        (graph_of(call("aten.neg.default", X, out=X)), "argument out is unknown"),
        (graph_of(call("aten.neg.default", X, self=X)), "given twice"),
        (graph_of(call("aten.neg.default", "x")), "argument self is 'x'"),
        (graph_of(call("aten.reshape.default", X, "4")), "argument shape is '4'"),
        (graph_of(call("aten.reshape.default", X, (4.0,))), r"argument shape is \(4.0,\)"),
        (graph_of(call("aten.cat.default", X)), "argument tensors"),
        (graph_of(call("aten.sum.default", X, dtype="float32")), "argument dtype is 'float32'"),
        (graph_of(call("aten.neg.default", X, outputs=())), "has outputs"),
        (graph_of(call("aten.neg.default", X, outputs=(FLAG,))), "has outputs"),
        (graph_of(call("aten.sym_size.int", X, 0, outputs=(VECTOR,))), "has outputs"),
        (graph_of(call("sym.add", 1, outputs=(ScalarType("int"),))), "has 1 arguments"),
        (graph_of(call("sym.add", 1, X, outputs=(ScalarType("int"),))), "takes Ref"),
        (graph_of(call("sym.add", 1, 2)), "no single scalar output"),
        (graph_of(call("aten.neg.default", X, outputs=(SYMBOLIC,))), "symbol s0, which has no range"),
        (graph_of(guards=(Guard(sympy.Eq(symbol("s3"), 1)),)), "symbol s3"),
        (graph_of(symbols={"s0": SymbolRange(5, 4)}), "empty range"),
        (graph_of(call("aten.neg.default", X, outputs=(TensorType((-1,), torch.float32),))), "dimension of -1"),
        (graph_of(call("aten.neg.default", X, outputs=(TensorType((True,), torch.float32),))), "dimension of True"),
        (
            graph_of(call("aten.batch_norm.default", X, None, None, X, X, True, 0.1, 1e-5, True)),
            "writes to its running statistics",
        ),
        (
            graph_of(call("aten.neg.default", X, outputs=(TensorType((4,), torch.float32, "channels_last"),))),
            "1 dimensions in channels_last",
        ),
        (graph_of(dataclasses.replace(call("aten.neg.default", X), regions=(REGION,))), "has regions"),
        (graph_of(call("cond", True, (X,))), "has 0 regions"),
        (graph_of(dataclasses.replace(call("cond", (X,)), regions=(REGION, REGION))), "the predicate of a cond"),
        (graph_of(dataclasses.replace(call("cond", 1.5, (X,)), regions=(REGION, REGION))), "predicate 1.5"),
        (graph_of(dataclasses.replace(call("map", (X, X), ()), regions=(REGION,))), "a region takes 1 inputs"),
        (
            graph_of(dataclasses.replace(call("map", (X,), (), outputs=(VECTOR, VECTOR)), regions=(REGION,))),
            r"regions give \[1\] values",
        ),
    ],
)
def test_what_is_wrong_is_named(graph: Graph, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        validate(graph)


def test_regions_nested_without_end_are_refused() -> None:
    region = REGION
    for _ in range(40):
        region = graph_of(dataclasses.replace(call("invoke_subgraph", (X,)), regions=(region,)), outputs=(Ref(1),))
    with pytest.raises(GraphError, match="more than 16 deep"):
        validate(region)


def test_a_constant_that_changed_is_found_on_request() -> None:
    builder = Builder()
    weight = torch.ones(4)
    graph = builder.finish(builder.constant(weight, "weight"))
    weight.zero_()
    validate(graph)
    with pytest.raises(GraphError, match="weight does not match its hash"):
        validate(graph, content=True)


@pytest.mark.parametrize(
    "op",
    [
        *("aten.add_.Tensor", "aten.set_.source_Tensor", "aten.from_file.default", "aten.as_strided.default"),
        *(
            "aten.empty.memory_format",
            "aten.resize_.default",
            "aten._foreach_add_.List",
            "aten._debug_has_internal_overlap.default",
        ),
        *("aten.add.out", "prim.device.default", "torch.load", "aten.__init__.default", "aten.add", "", "a" * 10_000),
    ],
)
def test_the_policy_refuses(op: str) -> None:
    with pytest.raises(GraphError):
        resolve(op)


@pytest.mark.parametrize(
    "op",
    [
        *("aten.linear.default", "aten.conv2d.padding", "aten.scaled_dot_product_attention.default"),
        *("aten.lstm.input", "aten.index.Tensor", "aten.__and__.Tensor", "aten.embedding_bag.padding_idx"),
        *("aten.upsample_bilinear2d.vec", "aten.full.default", "aten._softmax.default", "taut.int8_linear.default"),
    ],
)
def test_the_policy_allows(op: str) -> None:
    assert str(resolve(op)) == op
