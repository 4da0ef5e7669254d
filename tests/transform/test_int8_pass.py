"""Linear layers on the int8 kernel."""

import pytest
import torch
from by_hand import assert_survives_storage, by_hand, call, normal, ops, sentences, signal_to_noise

from taut.errors import ArgumentError, EmptyChangeError
from taut.graph import Interpreter
from taut.transform import apply_recipe, get_pass

INT8 = get_pass("int8_linear")
KERNEL = "taut.int8_linear.default"


@pytest.mark.parametrize(("batch", "length"), [(3, 9), (2, 2), (5, 64)])
def test_encoder_stays_close_at_every_length(encoder, batch, length, tmp_path):
    change = INT8.apply(encoder)
    assert ops(change.graph).count(KERNEL) == 6
    assert "aten.gelu.default" not in ops(change.graph)
    inputs = sentences(batch, length)
    assert signal_to_noise(Interpreter(encoder)(*inputs), Interpreter(change.graph)(*inputs)) > 30
    assert_survives_storage(change.graph, tmp_path, *inputs)


def activated(op, *args, again=False):
    def body(builder, x):
        y = call(builder, "aten.linear.default", x, builder.constant(normal(64, 64) / 8, "w"))
        z = call(builder, op, y, *args)
        return (z, y) if again else z

    return by_hand(body, (4, 64))


@pytest.mark.parametrize(
    ("graph", "fused"),
    [
        (activated("aten.relu.default"), "relu"),
        (activated("aten.gelu.default"), "gelu"),
        (activated("aten.tanh.default"), "none"),
        (activated("aten.relu.default", again=True), "none"),
    ],
)
def test_fuses_only_what_the_kernel_has_and_nobody_else_reads(graph, fused):
    after = INT8.apply(graph).graph
    (node,) = [node for node in after.nodes if node.op == KERNEL]
    assert node.args[4] == fused
    expected, got = Interpreter(graph)(normal(4, 64)), Interpreter(after)(normal(4, 64))
    pairs = zip(expected, got, strict=True) if isinstance(expected, tuple) else [(expected, got)]
    assert all(signal_to_noise(left, right) > 35 for left, right in pairs)


def test_the_tanh_gelu_is_not_the_exact_one():
    def body(builder, x):
        y = call(builder, "aten.linear.default", x, builder.constant(normal(64, 64), "w"))
        return call(builder, "aten.gelu.default", y, approximate="tanh")

    assert ops(INT8.apply(by_hand(body, (4, 64))).graph) == [KERNEL, "aten.gelu.default"]


def test_addmm_with_a_constant_matrix():
    def body(builder, x):
        bias, matrix = builder.constant(normal(96, seed=1), "b"), builder.constant(normal(64, 96), "m")
        return call(builder, "aten.addmm.default", bias, x, matrix)

    graph = by_hand(body, (4, 64))
    after = INT8.apply(graph).graph
    assert ops(after) == [KERNEL]
    assert signal_to_noise(Interpreter(graph)(normal(4, 64)), Interpreter(after)(normal(4, 64))) > 35


def test_small_layers_and_skipped_modules_stay(encoder):
    assert INT8.applies(encoder, minimum_features=65).count == 0
    assert INT8.applies(encoder, skip=["up", "down"]).count == 4
    assert INT8.apply(encoder, skip=("up",)).options == {"minimum_features": 64, "skip": ("up",)}


def test_a_table_that_is_also_a_weight_stays_for_the_lookup():
    def body(builder, x):
        table = builder.constant(normal(80, 64), "table")
        ids = call(builder, "aten.argmax.default", x, 1)
        return call(builder, "aten.linear.default", call(builder, "aten.embedding.default", table, ids), table)

    graph = by_hand(body, (4, 80))
    after = INT8.apply(graph).graph
    assert ops(after) == ["aten.argmax.default", "aten.embedding.default", KERNEL]
    assert signal_to_noise(Interpreter(graph)(normal(4, 80)), Interpreter(after)(normal(4, 80))) > 35


def test_computed_weights_stay():
    def body(builder, x, weight):
        return call(builder, "aten.linear.default", x, weight)

    with pytest.raises(EmptyChangeError, match="constant float32 weight"):
        INT8.apply(by_hand(body, (4, 64), (64, 64)))


def test_bfloat16_after_int8_keeps_scales_and_bias_in_float32(encoder):
    after, _ = apply_recipe(encoder, [("int8_linear", {}), ("bfloat16", {})])
    for node in after.nodes:
        if node.op == KERNEL:
            scales, bias = after.constant(node.args[2]), after.constant(node.args[3])
            assert scales is not None
            assert bias is not None
            assert scales.dtype == bias.dtype == torch.float32
    inputs = sentences(4, 12)
    assert signal_to_noise(Interpreter(encoder)(*inputs), Interpreter(after)(*inputs)) > 28


@pytest.mark.parametrize(
    "options",
    [
        {"minimum": 3},
        {"minimum_features": "3"},
        {"minimum_features": 0},
        {"skip": "up"},
        {"skip": ["u"]},
        {"skip": [3]},
    ],
)
def test_wrong_options_are_named(encoder, options):
    with pytest.raises(ArgumentError, match=rf"int8_linear\.{next(iter(options))}"):
        INT8.apply(encoder, **options)
