"""Whole graphs by scheme: what runs where, what stays, exact sizes, and what people get wrong."""

import json

import pytest
import torch
from by_hand import assert_survives_storage, by_hand, call, normal, ops, sentences, signal_to_noise

from taut.errors import ArgumentError, EmptyChangeError, TransformError
from taut.graph import Interpreter, infer_types
from taut.numerics import convolution_rows, encode, get_format, get_scheme
from taut.transform import apply_recipe, get_pass, kernel_kinds

QUANTISE = get_pass("quantise")
LAYERS = ("query", "key", "value", "out", "up", "down")


def stored(graph, part):
    """The constants whose names hold the text."""
    named = [node for node in graph.nodes if node.op == "constant" and part in str(node.args[1])]
    return {str(node.args[1]): graph.constants[str(node.args[0])] for node in named}


@pytest.mark.parametrize(
    ("scheme", "least"),
    [("int8-channel", 40), ("poc-w8a8", 38), ("vsq4-v16-s4", 19), ("vsq-w4a4-v16-s6", 18), ("vsq-w3a8-v16", 12)],
)
def test_encoder_stays_close_at_every_length(encoder, scheme, least, tmp_path):
    after = QUANTISE.apply(encoder, scheme=scheme).graph
    for batch, length in ((3, 9), (2, 2), (5, 40)):
        inputs = sentences(batch, length)
        assert signal_to_noise(Interpreter(encoder)(*inputs), Interpreter(after)(*inputs)) > least
    assert_survives_storage(after, tmp_path, *sentences(3, 9))


def decoded(rows, scheme, kind):
    """The values of a weight; the int8 kernels range to the largest magnitude of a channel."""
    on_kernel = scheme.weights.name == "int8-channel" and kind in kernel_kinds(scheme)
    return encode(rows, scheme.weights, chooser="max" if on_kernel else None).decode()


def convolution(channels=8, groups=1, window=3, padding=1):
    """A convolution to 24 channels, and a ReLU."""

    def body(builder, x):
        weight = builder.constant(normal(24, channels // groups, window, window), "body.weight")
        bias = builder.constant(normal(24, seed=1), "body.bias")
        sides, ones = (padding, padding), (1, 1)
        y = call(builder, "aten.conv2d.default", x, weight, bias, (2, 1), sides, ones, groups)
        return call(builder, "aten.relu.default", y)

    return by_hand(body, (3, channels, 9, 7))


def quantised_image(image, form):
    """Vectors along the channels, one coarse scale an image."""
    count, channels, height, width = image.shape
    wide = torch.zeros(count, height, width, -(-channels // 16) * 16)
    wide[..., :channels] = image.permute(0, 2, 3, 1)
    rows = torch.ops.taut.fake_quantise(wide.flatten(1), form.name, -1)
    return rows.view(wide.shape)[..., :channels].permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [8, 16, 20])
@pytest.mark.parametrize(
    "name", ["vsq4-v16-s4", "mxfp4", "poc-w8a8", "poc-w4a4", "vsq-w4a8-v16", "vsq-w4a4-v16", "vsq-w3a8-v16"]
)
def test_convolutions_compute_on_what_the_formats_make_of_weights_and_images(name, channels, tmp_path):
    scheme, graph, x = get_scheme(name), convolution(channels), normal(3, channels, 9, 7) * 3
    after = QUANTISE.apply(graph, scheme=name, minimum_features=1).graph
    weight, bias = stored(graph, "body.weight")["body.weight"], stored(graph, "body.bias")["body.bias"]
    kernel = decoded(convolution_rows(weight), scheme, "convolution").transpose(1, 2).reshape(weight.shape)
    source = x if scheme.activations is None else quantised_image(x, scheme.activations)
    reference = torch.relu(torch.nn.functional.conv2d(source, kernel, bias, (2, 1), (1, 1)))
    assert signal_to_noise(reference, Interpreter(after)(x)) > 60
    assert [node.outputs for node in infer_types(after).nodes] == [node.outputs for node in after.nodes]
    assert_survives_storage(after, tmp_path, x)


@pytest.mark.parametrize(
    "name", ["vsq4-v16-s4", "poc-w8a8", "poc-w4a4", "vsq-w4a8-v16", "vsq-w4a4-v16", "vsq-w8a8-v16"]
)
@pytest.mark.parametrize("features", [48, 100])
def test_linear_layers_compute_on_what_the_formats_make_of_weights_and_tokens(name, features):
    def body(builder, x):
        weight, bias = builder.constant(normal(40, features), "w.weight"), builder.constant(normal(40, seed=1), "b")
        return call(builder, "aten.gelu.default", call(builder, "aten.linear.default", x, weight, bias))

    scheme, graph, x = get_scheme(name), by_hand(body, (2, 5, features)), normal(2, 5, features, seed=3)
    after = QUANTISE.apply(graph, scheme=name).graph
    weight = decoded(normal(40, features), scheme, "linear")
    source = x if scheme.activations is None else torch.ops.taut.fake_quantise(x, scheme.activations.name, -1)
    reference = torch.nn.functional.gelu(torch.nn.functional.linear(source, weight, normal(40, seed=1)))
    assert signal_to_noise(reference, Interpreter(after)(x)) > 60


def test_emulated_weights_take_the_bytes_of_their_format(encoder):
    form = get_format("vsq3-v16-s6")
    after = QUANTISE.apply(encoder, scheme=form.name).graph
    for name, weight in stored(encoder, "weight").items():
        if weight.dim() == 2:
            parts = stored(after, f"{name}.{form.name}.")
            assert name not in stored(after, name)
            assert sum(part.nbytes for part in parts.values()) == form.nbytes(tuple(weight.shape))


def test_a_decoded_weight_is_computed_once_when_the_graph_is_loaded(encoder):
    after = QUANTISE.apply(encoder, scheme="vsq4-v16-s4").graph
    decoding = {node.id for node in after.nodes if node.op == "taut.decode.default"}
    assert len(decoding) == len(LAYERS)
    assert decoding.isdisjoint(Interpreter(after).profile(*sentences(3, 9)))


def test_layers_on_one_input_share_its_quantisation(encoder):
    after = QUANTISE.apply(encoder, scheme="vsq-w4a4-v16-s6").graph
    assert ops(after).count("taut.fake_quantise.default") == len(LAYERS) - 2  # query, key and value read one value


def test_kernels_serve_their_schemes_and_nothing_else(encoder):
    def of(scheme, *kernel):
        return [ops(QUANTISE.apply(encoder, scheme=scheme).graph).count(f"taut.{name}.default") for name in kernel]

    assert of("poc-w8a8", "int8_linear", "fake_quantise") == [6, 0]
    assert of("vsq-w4a8-v16", "vector_linear", "fake_quantise") == [6, 0]
    assert of("vsq-w4a4-v16", "vector_linear", "fake_quantise") == [6, 0]
    assert of("vsq-w4a8-v32", "vector_linear", "fake_quantise") == [0, 4]


def test_exceptions_by_layer(encoder):
    change = QUANTISE.apply(encoder, scheme="vsq4-v16-s4", layers=["up=int8-channel", "key=float32", "embedding=q4_0"])
    names = " ".join(stored(change.graph, "weight"))
    for expected in ("up.weight.int8-channel", "embedding.weight.q4_0", "out.weight.vsq4-v16-s4"):
        assert expected in names
    assert "key.weight" in stored(change.graph, "key.weight")
    again = QUANTISE.apply(encoder, **json.loads(json.dumps(dict(change.options))))
    assert again.graph == change.graph


def test_the_longest_path_decides():
    def body(builder, x):
        for seed, name in enumerate(("net.a", "net.b")):
            weight = builder.constant(normal(16, 16, seed=seed), f"{name}.weight")
            x = call(builder, "aten.linear.default", x, weight)
        return x

    graph = by_hand(body, (4, 16))
    after = QUANTISE.apply(graph, scheme="float32", layers=["net.b=float32", "net=int8-channel"]).graph
    assert "net.b.weight" in stored(after, "weight")
    assert "net.a.weight" not in stored(after, "net.a.weight")


def test_a_named_layer_need_not_be_wide(residual):
    after = QUANTISE.apply(residual, scheme="float32", layers=["head=int8-channel"], minimum_features=64).graph
    assert "head.weight" not in stored(after, "head")


def test_merged_layers_go_by_each_of_their_names(encoder):
    merged = ("merge_parallel_linear", {})
    graph, changes = apply_recipe(encoder, [merged, ("quantise", {"scheme": "float32", "layers": ["key=poc-w8a8"]})])
    assert len(changes[1].replaced) == 1
    assert signal_to_noise(Interpreter(encoder)(*sentences(3, 9)), Interpreter(graph)(*sentences(3, 9))) > 38


def test_a_table_that_is_also_a_weight_is_stored_once_and_serves_both():
    def body(builder, x):
        table = builder.constant(normal(80, 64), "table.weight")
        ids = call(builder, "aten.argmax.default", x, 1)
        return call(builder, "aten.linear.default", call(builder, "aten.embedding.default", table, ids), table)

    graph = by_hand(body, (4, 80))
    after = QUANTISE.apply(graph, scheme="int8-channel").graph
    assert set(stored(after, "table")) == {"table.weight.int8-channel.codes", "table.weight.int8-channel.gammas"}
    assert signal_to_noise(Interpreter(graph)(normal(4, 80)), Interpreter(after)(normal(4, 80))) > 35


def test_grouped_convolutions_stay_and_the_summary_says_so(mobile):
    change = QUANTISE.apply(mobile, scheme="int8-channel", minimum_features=8)
    assert len(change.replaced) == 2
    assert "body.3 stays, as it has 16 groups" in change.summary
    with pytest.raises(ArgumentError, match=r"body\.3[\s\S]*it has 16 groups"):
        QUANTISE.apply(mobile, layers=["body.3=int8-channel"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheme": "vsq-w4a9-v16"}, "did you mean"),
        ({"scheme": "int8-chanel"}, "int8-channel"),
        ({"layers": ["upp=int8-channel"]}, r"did you mean up\?"),
        ({"layers": ["up"]}, "PATH=SCHEME"),
        ({"layers": ["up="]}, "PATH=SCHEME"),
        ({"layers": ["up=int8-channel", "up=q4_0"]}, "each path once"),
        ({"layers": ["up=int9"]}, "int9"),
        ({"layers": [3]}, "a string"),
        ({"layers": "up=int8-channel"}, r"quantise\.layers"),
        ({"minimum_features": "16"}, r"quantise\.minimum_features"),
        ({"minimum_features": 0}, "a whole number from 1"),
        ({"skip": ["upp"]}, r"did you mean up\?"),
        ({"skip": ["up", "u"]}, r"quantise\.skip"),  # a path, not a prefix of letters
        ({"schemes": "int8-channel"}, "scheme, layers, skip"),
    ],
)
def test_wrong_options_are_named(encoder, options, said):
    with pytest.raises(ArgumentError, match=said):
        QUANTISE.apply(encoder, **options)


def test_nothing_to_do_is_said(encoder):
    with pytest.raises(EmptyChangeError, match="wide enough"):
        QUANTISE.apply(encoder, minimum_features=1000)
    with pytest.raises(EmptyChangeError):
        QUANTISE.apply(encoder, scheme="float32")


@pytest.mark.parametrize("name", ["vsq4-v16-s4", "poc-w8a8", "vsq-w4a8-v16"])
def test_weights_that_are_no_numbers_are_named(name):
    def body(builder, x):
        weight = normal(32, 32)
        weight[3, 5] = float("nan")
        return call(builder, "aten.linear.default", x, builder.constant(weight, "deep.layer.weight"))

    with pytest.raises(TransformError, match=r"deep\.layer\.weight holds NaN"):
        QUANTISE.apply(by_hand(body, (4, 32)), scheme=name)
