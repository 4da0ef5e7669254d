"""Passes that put every layer of a kind on one kernel, and encoded tables."""

import pytest
import torch
from by_hand import assert_survives_storage, by_hand, call, normal, ops, sentences, signal_to_noise

from taut.errors import ArgumentError, EmptyChangeError
from taut.graph import Interpreter, infer_types
from taut.numerics import encode, get_format
from taut.transform import apply_recipe, get_pass


@pytest.mark.parametrize(("name", "inputs", "least"), [("w4a8_linear", "int8", 19), ("w4a4_linear", "vsq4", 18)])
def test_linear_layers_on_four_bits(encoder, name, inputs, least, tmp_path):
    change = get_pass(name).apply(encoder)
    kernels = [node for node in change.graph.nodes if node.op == "taut.vector_linear.default"]
    assert [node.args[5] for node in kernels] == [inputs] * 6
    assert [node.args[4] for node in kernels].count("gelu") == 1
    tokens = sentences(3, 9)
    assert signal_to_noise(Interpreter(encoder)(*tokens), Interpreter(change.graph)(*tokens)) > least
    assert_survives_storage(change.graph, tmp_path, *tokens)
    assert get_pass(name).applies(encoder, minimum_features=65).count == 0
    assert get_pass(name).applies(encoder, skip=["up", "down"]).count == 4


@pytest.mark.parametrize(("name", "op"), [("int8_convolution", "int8"), ("w4a8_convolution", "vector")])
@pytest.mark.parametrize("before", [[], ["channels_last"], ["fold_batch_norm", "channels_last"]], ids="+".join)
def test_convolutions(residual, name, op, before, tmp_path):
    steps = [(step, {}) for step in before]
    after, changes = apply_recipe(residual, [*steps, (name, {"minimum_channels": 8})])
    assert len(changes[-1].replaced) == 4
    assert ops(after).count(f"taut.{op}_convolution.default") == 4
    x = normal(5, 3, 16, 16)
    got = Interpreter(after)(x)
    assert signal_to_noise(Interpreter(residual)(x), got) > (35 if op == "int8" else 18)
    assert [node.outputs for node in infer_types(after).nodes] == [node.outputs for node in after.nodes]
    assert_survives_storage(after, tmp_path, x)


def test_a_folded_network_fuses_the_activation_into_the_convolution(residual):
    after, _ = apply_recipe(residual, [("fold_batch_norm", {}), ("int8_convolution", {"minimum_channels": 8})])
    fused = [node.args[-1] for node in after.nodes if node.op == "taut.int8_convolution.default"]
    assert fused.count("relu") == 2  # the others go through an addition


def test_the_first_convolution_of_three_channels_stays(residual):
    assert get_pass("int8_convolution").applies(residual).count == 1
    assert get_pass("int8_convolution").applies(residual, minimum_channels=3).count == 5
    assert get_pass("int8_convolution").applies(residual, minimum_channels=8, skip=["convolutions.1"]).count == 3


def test_image_passes_then_bfloat16(residual):
    recipe = [("channels_last", {}), ("int8_convolution", {"minimum_channels": 8}), ("bfloat16", {})]
    after, _ = apply_recipe(residual, recipe)
    x = normal(5, 3, 16, 16)
    assert signal_to_noise(Interpreter(residual)(x), Interpreter(after)(x)) > 30


@pytest.mark.parametrize(("form", "least"), [("int8-channel", 40), ("vsq4-v16-s4", 20), ("q4_0", 17)])
def test_encoded_tables_give_the_rows_of_their_format(encoder, form, least, tmp_path):
    after = get_pass("quantised_embedding").apply(encoder, format=form).graph
    assert ops(after).count("taut.encoded_embedding.default") == 2
    tokens = sentences(3, 9)
    assert signal_to_noise(Interpreter(encoder)(*tokens), Interpreter(after)(*tokens)) > least
    before, stored = (sum(t.nbytes for t in graph.constants.values()) for graph in (encoder, after))
    sizes = [(50, 64), (64, 64)]
    assert before - stored == sum(4 * rows * width - get_format(form).nbytes((rows, width)) for rows, width in sizes)
    assert_survives_storage(after, tmp_path, *tokens)


def test_a_sliced_table_is_stored_encoded_and_decoded_when_loaded():
    def body(builder, x):
        table = builder.constant(normal(32, 16), "positions.weight")
        first = call(builder, "aten.slice.Tensor", table, 0, 0, 4)
        return call(builder, "aten.add.Tensor", x, first)

    graph = by_hand(body, (4, 16))
    after = get_pass("quantised_embedding").apply(graph).graph
    assert ops(after) == ["taut.decode.default", "aten.slice.Tensor", "aten.add.Tensor"]
    expected = normal(4, 16, seed=1) + encode(normal(32, 16), get_format("vsq4-v16-s4")).decode()[:4]
    run = Interpreter(after)
    assert torch.equal(run(normal(4, 16, seed=1)), expected)
    assert torch.equal(run(normal(4, 16, seed=1)), expected)


def test_a_table_that_is_read_otherwise_stays():
    def body(builder, x):
        table = builder.constant(normal(80, 64), "table.weight")
        ids = call(builder, "aten.argmax.default", x, 1)
        return call(builder, "aten.linear.default", call(builder, "aten.embedding.default", table, ids), table)

    graph = by_hand(body, (4, 80))
    with pytest.raises(EmptyChangeError, match="read in no other way"):
        get_pass("quantised_embedding").apply(graph)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("quantised_embedding", {"format": "vsq4-v16-s44"}, "format"),
        ("quantised_embedding", {"format": 4}, r"quantised_embedding\.format"),
        ("quantised_embedding", {"minimum_features": -1}, "a whole number from 1"),
        ("quantised_embedding", {"skip": ["nowhere"]}, r"quantised_embedding\.skip"),
        ("w4a4_linear", {"minimum_features": 0}, r"w4a4_linear\.minimum_features"),
        ("w4a8_linear", {"skip": ["upp"]}, r"did you mean up\?"),
        ("int8_convolution", {"minimum_channels": 0}, r"int8_convolution\.minimum_channels"),
        ("w4a8_linear", {"minimum_channels": 4}, "minimum_features"),
        ("int8_convolution", {"minimum_features": 4}, "minimum_channels"),
    ],
)
def test_wrong_options_are_named(encoder, name, options, said):
    with pytest.raises(ArgumentError, match=said):
        get_pass(name).apply(encoder, **options)
