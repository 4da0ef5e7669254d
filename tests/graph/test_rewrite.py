"""Rewriting: a new graph each time, dead code gone, checks kept."""

from __future__ import annotations

import torch

from taut.graph import (
    Builder,
    Graph,
    Interpreter,
    Node,
    Ref,
    TensorType,
    content_hash,
    eliminate_dead_code,
    rewrite,
    structural_hash,
    validate,
)

VECTOR = TensorType((4,), torch.float32)


def relu_of_sum() -> Graph:
    builder = Builder()
    x = builder.input("x", VECTOR)
    added = builder.add("aten.add.Tensor", x, builder.constant(torch.arange(4.0) - 2, "shift"), outputs=VECTOR)
    return builder.finish({"y": (builder.add("aten.relu.default", added, outputs=VECTOR), [x])})


def test_a_rewrite_replaces_and_drops_what_is_no_longer_used() -> None:
    graph = relu_of_sum()

    def fuse(node: Node, builder: Builder) -> Ref | None:
        if node.op != "aten.relu.default":
            return None
        producer = graph.nodes[node.inputs[0].node]
        return builder.add("aten.clamp_min.default", builder.map(producer.args[0]), 0, outputs=VECTOR)

    changed = rewrite(graph, fuse)
    validate(changed)
    assert [node.op for node in changed.nodes] == ["input", "aten.clamp_min.default"]
    assert dict(changed.constants) == {}
    assert Interpreter(changed)(torch.tensor([-1.0, 2, -3, 4]))["y"][0].tolist() == [0, 2, 0, 4]
    assert [node.op for node in graph.nodes] == ["input", "constant", "aten.add.Tensor", "aten.relu.default"]


def test_a_rewrite_that_changes_nothing_gives_an_equal_graph() -> None:
    graph = relu_of_sum()
    same = rewrite(graph, lambda node, builder: None)
    assert same == graph
    assert structural_hash(same) == structural_hash(graph)


def test_dead_code_goes_but_inputs_and_checks_stay() -> None:
    builder = Builder()
    x = builder.input("x", VECTOR)
    builder.input("unused", VECTOR)
    builder.add("aten.neg.default", x, outputs=VECTOR)
    holds = builder.add("aten.all.default", x, outputs=TensorType((), torch.bool))
    builder.add("check", holds, "all", outputs=())
    graph = builder.finish(x)
    assert [node.op for node in graph.nodes] == ["input", "input", "aten.all.default", "check"]
    assert eliminate_dead_code(graph) is graph


def test_a_buffer_stays_a_buffer() -> None:
    builder = Builder()
    mean = builder.constant(torch.zeros(4), "mean", buffer=True)
    graph = rewrite(builder.finish(builder.add("aten.neg.default", mean, outputs=VECTOR)), lambda node, builder: None)
    assert graph.nodes[0].keyword("buffer") is True


def test_users_count_each_node_once() -> None:
    builder = Builder()
    x = builder.input("x", VECTOR)
    square = builder.add("aten.mul.Tensor", x, x, outputs=VECTOR)
    graph = builder.finish((square, square))
    assert graph.users == ((1,), ())
    assert graph.uses(1) == 2


def test_the_content_hash_tells_values_types_shapes_and_layouts_apart() -> None:
    base = torch.arange(16.0).reshape(1, 4, 2, 2)
    different = [base, base + 1, base.double(), base.reshape(4, 4), base.to(memory_format=torch.channels_last)]
    different += [torch.zeros(0), torch.zeros(0, 2), torch.tensor(0.0), torch.tensor(-0.0), torch.tensor(float("nan"))]
    assert len({content_hash(item) for item in different}) == len(different)
    assert content_hash(base.clone()) == content_hash(base)
    assert content_hash(base.flatten()[::2]) == content_hash(base.flatten()[::2].contiguous())
