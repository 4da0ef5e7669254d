"""Convolutions and linear layers on oneDNN's fused operators."""

import pytest
import torch
from by_hand import assert_same, assert_survives_storage, by_hand, call, normal, ops, sentences
from torch import nn

from taut.errors import EmptyChangeError, GraphError
from taut.graph import Builder, Interpreter, TensorType, validate
from taut.transform import apply_recipe, get_pass, missing_needs

CONVOLUTION, LINEAR = get_pass("fuse_convolution"), get_pass("fuse_linear")
UNARY, BINARY = "mkldnn._convolution_pointwise.default", "mkldnn._convolution_pointwise.binary"
FUSED_LINEAR = "mkldnn._linear_pointwise.default"

pytestmark = pytest.mark.skipif(bool(missing_needs(LINEAR)), reason="this build of torch has no oneDNN")


def computing(graph):
    """The operators without the reordering of an image that is given out."""
    return [op for op in ops(graph) if op != "aten.contiguous.default"]


def convolution(builder, x, seed=0):
    weight = builder.constant(normal(4, 4, 3, 3, seed=seed), f"w{seed}")
    return call(builder, "aten.conv2d.default", x, weight, None, (1, 1), (1, 1))


def test_a_residual_network_is_nothing_but_fused_convolutions(residual, tmp_path):
    after, changes = apply_recipe(residual, [("fold_batch_norm", {}), ("fuse_convolution", {})])
    found = ops(after)
    assert (found.count(UNARY), found.count(BINARY)) == (3, 2)
    assert not {"aten.conv2d.default", "aten.relu.default", "aten.add.Tensor"} & set(found)
    assert changes[1].replaced[2].old_ops == ("aten.conv2d.default", "aten.add.Tensor", "aten.relu.default")
    for batch in (2, 9):
        assert_same(residual, after, normal(batch, 3, 16, 16))
    assert_survives_storage(after, tmp_path, normal(3, 3, 16, 16))


def test_an_image_comes_out_contiguous(mobile):
    after = CONVOLUTION.apply(mobile).graph
    assert Interpreter(after)(normal(2, 8, 6, 6)).is_contiguous()
    assert_same(mobile, after, normal(2, 8, 6, 6))


@pytest.mark.parametrize(
    "activation",
    [
        ("relu.default",),
        ("relu6.default",),
        ("leaky_relu.default", 0.2),
        ("leaky_relu.default",),
        ("hardtanh.default", -0.5, 0.5),
        ("hardtanh.default",),
        ("clamp.default", 0.0, 2.0),
        ("silu.default",),
        ("hardswish.default",),
        ("hardsigmoid.default",),
        ("sigmoid.default",),
        ("tanh.default",),
        ("gelu.default",),
    ],
    ids=str,
)
def test_every_activation_is_fused_exactly(activation):
    op, *rest = activation

    def body(builder, x):
        y = call(builder, f"aten.{op}", convolution(builder, x), *rest)
        weight = builder.constant(normal(7, 5), "head")
        return call(builder, f"aten.{op}", call(builder, "aten.linear.default", y, weight), *rest)

    graph = by_hand(body, (2, 4, 5, 5))
    after, _ = apply_recipe(graph, [("fuse_linear", {}), ("fuse_convolution", {})])
    assert ops(after) == [UNARY, FUSED_LINEAR]
    assert_same(graph, after, normal(2, 4, 5, 5))


def test_the_tanh_gelu_keeps_its_variant():
    def body(builder, x):
        return call(builder, "aten.gelu.default", convolution(builder, x), approximate="tanh")

    graph = by_hand(body, (2, 4, 5, 5))
    after = CONVOLUTION.apply(graph).graph
    (node,) = [node for node in after.nodes if node.op == UNARY]
    assert node.args[-3:] == ("gelu", (), "tanh")
    assert_same(graph, after, normal(2, 4, 5, 5))


def test_a_clamp_with_one_side_stays():
    def body(builder, x):
        return call(builder, "aten.clamp.default", convolution(builder, x), 0.0)

    assert computing(CONVOLUTION.apply(by_hand(body, (2, 4, 5, 5))).graph) == [UNARY, "aten.clamp.default"]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_windows_and_groups(groups):
    window = ((2, 1), (0, 1), (1, 2), groups)

    def body(builder, x):
        weight = builder.constant(normal(8, 4 // groups, 3, 3), "w")
        return call(builder, "aten.conv2d.default", x, weight, builder.constant(normal(8), "b"), *window)

    graph = by_hand(body, (2, 4, 9, 9))
    after = CONVOLUTION.apply(graph).graph
    assert computing(after) == [UNARY]
    assert_same(graph, after, normal(2, 4, 9, 9))


def test_of_two_convolutions_that_are_added_one_takes_the_addition():
    def body(builder, x):
        left, right = convolution(builder, x, 0), convolution(builder, x, 1)
        return call(builder, "aten.relu.default", call(builder, "aten.add.Tensor", left, right))

    graph = by_hand(body, (2, 4, 5, 5))
    after = CONVOLUTION.apply(graph).graph
    assert computing(after) == [UNARY, BINARY]
    assert_same(graph, after, normal(2, 4, 5, 5))


def broadcast(builder, x):
    bias = builder.constant(normal(1, 4, 1, 1), "shift")
    return call(builder, "aten.add.Tensor", convolution(builder, x), bias)


def scaled(builder, x):
    return call(builder, "aten.add.Tensor", convolution(builder, x), x, alpha=2)


def doubled(builder, x):
    y = convolution(builder, x)
    return call(builder, "aten.add.Tensor", y, y)


@pytest.mark.parametrize("body", [broadcast, scaled, doubled])
def test_additions_that_the_operator_lacks_stay(body):
    graph = by_hand(body, (2, 4, 5, 5))
    after = CONVOLUTION.apply(graph).graph
    assert computing(after) == [UNARY, "aten.add.Tensor"]
    assert_same(graph, after, normal(2, 4, 5, 5))


def test_an_addition_after_a_grouped_convolution_stays():
    # ATen's stand-in for the fusion that oneDNN lacks there knows no bfloat16.
    def body(builder, x):
        weight = builder.constant(normal(4, 1, 3, 3), "w")
        y = call(builder, "aten.conv2d.default", x, weight, None, (1, 1), (1, 1), (1, 1), 4)
        return call(builder, "aten.relu.default", call(builder, "aten.add.Tensor", y, x))

    graph = by_hand(body, (2, 4, 5, 5))
    after = CONVOLUTION.apply(graph).graph
    assert computing(after) == [UNARY, "aten.add.Tensor", "aten.relu.default"]
    assert_same(graph, after, normal(2, 4, 5, 5))
    x = normal(2, 4, 5, 5)
    half = CONVOLUTION.apply(get_pass("bfloat16").apply(graph).graph).graph
    assert torch.allclose(Interpreter(half)(x), Interpreter(graph)(x), rtol=0.05, atol=0.05)


def test_after_an_addition_only_relu_is_fused():
    def body(builder, x):
        return call(builder, "aten.sigmoid.default", call(builder, "aten.add.Tensor", x, convolution(builder, x)))

    graph = by_hand(body, (2, 4, 5, 5))
    after = CONVOLUTION.apply(graph).graph
    assert computing(after) == [BINARY, "aten.sigmoid.default"]
    assert_same(graph, after, normal(2, 4, 5, 5))


def sequence(builder, x):
    weight = builder.constant(normal(5, 4, 3), "w")
    return call(builder, "aten.conv1d.default", call(builder, "aten.flatten.using_ints", x, 2), weight)


def asymmetric(builder, x):
    weight = builder.constant(normal(4, 4, 2, 2), "w")
    return call(builder, "aten.conv2d.padding", x, weight, None, (1, 1), "same")


def computed(builder, x):
    weight = call(builder, "aten.relu.default", builder.constant(normal(4, 4, 3, 3), "w"))
    return call(builder, "aten.conv2d.default", x, weight)


@pytest.mark.parametrize("body", [sequence, asymmetric, computed])
def test_left_alone(body):
    with pytest.raises(EmptyChangeError, match="fuse_convolution"):
        CONVOLUTION.apply(by_hand(body, (2, 4, 5, 5)))


@pytest.mark.parametrize(("batch", "length"), [(2, 2), (3, 9), (4, 64)])
def test_encoder_on_fused_linear_layers_at_every_length(encoder, batch, length):
    after = LINEAR.apply(encoder).graph
    assert ops(after).count(FUSED_LINEAR) == 6
    assert not {"aten.linear.default", "aten.gelu.default"} & set(ops(after))
    inputs = sentences(batch, length)
    expected, got = Interpreter(encoder)(*inputs), Interpreter(after)(*inputs)
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 16), (16,), (1, 16), (2, 3, 16)])
def test_linear_layers_on_inputs_of_any_rank(shape):
    weight = normal(8, 16)

    def body(builder, x):
        return call(builder, "aten.linear.default", x, builder.constant(weight, "w"))

    after = LINEAR.apply(by_hand(body, shape)).graph
    x = normal(*shape)
    assert torch.allclose(Interpreter(after)(x), nn.functional.linear(x, weight), rtol=1e-5, atol=1e-5)


def test_a_layer_with_float64_weights_stays():
    def body(builder, x):
        wide = call(builder, "aten._to_copy.default", x, dtype=torch.float64)
        return call(builder, "aten.linear.default", wide, builder.constant(normal(8, 16).double(), "w"))

    assert "float32 or bfloat16" in LINEAR.applies(by_hand(body, (2, 16))).reason


def test_only_these_operators_of_onednn_may_stand_in_a_graph():
    builder = Builder()
    weight = builder.input("w", TensorType((4, 4), torch.float32))
    reordered = builder.add("mkldnn._reorder_linear_weight.default", weight, outputs=builder.value_type(weight))
    graph = builder.finish(reordered)
    with pytest.raises(GraphError, match="may not stand in a graph"):
        validate(graph)
