"""Batch norm goes into the layer beside it, wherever that is exact and nowhere else."""

import math

import pytest
import torch
from by_hand import assert_same, batch_norm, by_hand, call, norm_constants, normal, ops
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import EmptyChangeError
from taut.transform import get_pass

FOLD = get_pass("fold_batch_norm")


def folded(graph):
    change = FOLD.apply(graph)
    assert not any("batch_norm" in op for op in ops(change.graph))
    return change


@given(
    rank=st.integers(1, 3),
    groups=st.integers(1, 3),
    per_group_in=st.integers(1, 3),
    per_group_out=st.integers(1, 3),
    transposed=st.booleans(),
    bias=st.booleans(),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
)
@settings(max_examples=20, deadline=None)
def test_any_convolution_before_a_norm(rank, groups, per_group_in, per_group_out, transposed, bias, stride, padding):
    inputs, outputs = groups * per_group_in, groups * per_group_out
    kernel = (3,) * rank
    shape = (inputs, per_group_out, *kernel) if transposed else (outputs, per_group_in, *kernel)
    ones = (1,) * rank
    if transposed:
        form, rest = f"conv_transpose{rank}d.{'default' if rank == 1 else 'input'}", ((0,) * rank, groups, ones)
    else:
        form, rest = f"conv{rank}d.default", (ones, groups)

    def body(builder, x):
        weight = builder.constant(normal(*shape), "weight")
        shift = builder.constant(normal(outputs, seed=1), "bias") if bias else None
        window = ((stride,) * rank, (padding,) * rank)
        y = call(builder, f"aten.{form}", x, weight, shift, *window, *rest)
        return batch_norm(builder, y, outputs)

    graph = by_hand(body, (2, inputs, *(5,) * rank))
    change = folded(graph)
    assert len(change.replaced) == 1
    assert_same(graph, change.graph, normal(2, inputs, *(5,) * rank, seed=2))


@pytest.mark.parametrize("groups", [1, 2])
def test_general_convolution_operator(groups):
    def body(builder, x):
        weight = builder.constant(normal(4, 6 // groups, 3, 3), "w")
        window = ((1, 1), (1, 1), (1, 1), False, (0, 0), groups)
        y = call(builder, "aten.convolution.default", x, weight, None, *window)
        norm = (y, *norm_constants(builder, 4), 0.1, 1e-5)
        return call(builder, "aten._native_batch_norm_legit_no_training.default", *norm)

    graph = by_hand(body, (2, 6, 5, 5))
    assert_same(graph, folded(graph).graph, normal(2, 6, 5, 5))


def test_linear_before_a_norm_and_a_norm_before_linear():
    def body(builder, x):
        y = call(builder, "aten.linear.default", x, builder.constant(normal(5, 8), "a"))
        y = call(builder, "aten.relu.default", batch_norm(builder, y, 5))
        y = batch_norm(builder, y, 5, seed=20)
        return call(builder, "aten.linear.default", y, builder.constant(normal(3, 5), "b"), None)

    graph = by_hand(body, (6, 8))
    change = folded(graph)
    assert ops(change.graph) == ["aten.linear.default", "aten.relu.default", "aten.linear.default"]
    assert_same(graph, change.graph, normal(6, 8))


@pytest.mark.parametrize("groups", [1, 2])
def test_norm_before_an_unpadded_convolution(groups):
    def body(builder, x):
        weight = builder.constant(normal(4, 6 // groups, 3, 3), "w")
        y = batch_norm(builder, x, 6)
        return call(builder, "aten.conv2d.default", y, weight, None, (1, 1), (0, 0), (1, 1), groups)

    graph = by_hand(body, (2, 6, 5, 5))
    assert_same(graph, folded(graph).graph, normal(2, 6, 5, 5))


def test_two_norms_in_a_row_fold_into_one_layer():
    def body(builder, x):
        y = call(builder, "aten.linear.default", x, builder.constant(normal(5, 8), "a"))
        return batch_norm(builder, batch_norm(builder, y, 5), 5, seed=20)

    graph = by_hand(body, (6, 8))
    change = folded(graph)
    assert len(change.replaced) == 2
    assert_same(graph, change.graph, normal(6, 8))


def test_the_fold_rounds_once():
    """Within one unit in the last place of the float64 result, though scales span six orders of magnitude."""
    weight, scale = normal(64, 64), torch.logspace(-3, 3, 64)

    def body(builder, x):
        y = call(builder, "aten.linear.default", x, builder.constant(weight, "w"))
        zero, one = torch.zeros(64), torch.ones(64)
        parts = [builder.constant(item, name) for item, name in ((scale, "g"), (zero, "b"), (zero, "m"), (one, "v"))]
        return call(builder, "aten.batch_norm.default", y, *parts, False, 0.1, 1e-5, False)

    after = FOLD.apply(by_hand(body, (2, 64))).graph
    (found,) = [tensor for tensor in after.constants.values() if tensor.dim() == 2]
    exact = weight.double() * (scale.double() / math.sqrt(1 + 1e-5))[:, None]
    assert torch.equal(found, exact.to(torch.float32))


def test_the_record_names_what_was_replaced():
    def body(builder, x):
        weight = builder.constant(normal(4, 3, 3, 3), "w")
        y = builder.add(
            "aten.conv2d.default", x, weight, outputs=call_type(builder, x, weight), module_path="stem.conv"
        )
        return batch_norm(builder, y, 4)

    def call_type(builder, x, weight):
        return builder.value_type(call(builder, "aten.conv2d.default", x, weight))

    change = FOLD.apply(by_hand(body, (2, 3, 5, 5)))
    (replacement,) = change.replaced
    assert replacement.old_ops == ("aten.conv2d.default", "aten.batch_norm.default")
    assert replacement.new_ops == ("aten.conv2d.default",)
    assert change.pass_name == "fold_batch_norm"
    assert change.options == {}
    assert "1 place" in change.summary


def used_twice(builder, x):
    y = call(builder, "aten.conv2d.default", x, builder.constant(normal(3, 3, 3, 3), "w"), None, (1, 1), (1, 1))
    return call(builder, "aten.add.Tensor", batch_norm(builder, y, 3), y)


def is_an_output(builder, x):
    y = call(builder, "aten.conv2d.default", x, builder.constant(normal(3, 3, 3, 3), "w"))
    return (y, batch_norm(builder, y, 3))


def in_training(builder, x):
    y = call(builder, "aten.conv2d.default", x, builder.constant(normal(3, 3, 3, 3), "w"))
    return batch_norm(builder, y, 3, training=True)


def computed_weight(builder, x):
    weight = call(builder, "aten.relu.default", builder.constant(normal(3, 3, 3, 3), "w"))
    return batch_norm(builder, call(builder, "aten.conv2d.default", x, weight), 3)


def before_padding(builder, x):
    weight = builder.constant(normal(4, 3, 3, 3), "w")
    return call(builder, "aten.conv2d.default", batch_norm(builder, x, 3), weight, None, (1, 1), (1, 1))


def activation_between(builder, x):
    y = call(builder, "aten.conv2d.default", x, builder.constant(normal(3, 3, 3, 3), "w"))
    return batch_norm(builder, call(builder, "aten.relu.default", y), 3)


def linear_over_another_dimension(builder, x):
    y = call(builder, "aten.linear.default", x, builder.constant(normal(5, 5), "w"))
    return batch_norm(builder, y, 3)


@pytest.mark.parametrize(
    "body",
    [
        used_twice,
        is_an_output,
        in_training,
        computed_weight,
        before_padding,
        activation_between,
        linear_over_another_dimension,
    ],
)
def test_left_alone_where_it_would_not_be_exact(body):
    graph = by_hand(body, (2, 3, 5, 5))
    applicable = FOLD.applies(graph)
    assert not applicable
    assert "batch_norm" in applicable.reason
    with pytest.raises(EmptyChangeError, match="fold_batch_norm changes nothing"):
        FOLD.apply(graph)


def test_a_weight_that_two_layers_share_is_folded_for_each():
    def body(builder, x):
        weight = builder.constant(normal(3, 3, 3, 3), "shared")
        y = call(builder, "aten.conv2d.default", x, weight, None, (1, 1), (1, 1))
        y = batch_norm(builder, y, 3)
        z = call(builder, "aten.conv2d.default", y, weight, None, (1, 1), (1, 1))
        return call(builder, "aten.add.Tensor", batch_norm(builder, z, 3, seed=30), y)

    graph = by_hand(body, (2, 3, 5, 5))
    change = folded(graph)
    assert len([tensor for tensor in change.graph.constants.values() if tensor.dim() == 4]) == 2
    assert_same(graph, change.graph, normal(2, 3, 5, 5))
