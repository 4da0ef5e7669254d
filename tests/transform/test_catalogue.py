"""The catalogue, orders, and passes in every legal combination."""

import itertools
import json

import pytest
import torch
from by_hand import assert_survives_storage, normal, sentences, signal_to_noise

from taut.errors import ArgumentError, EmptyChangeError
from taut.graph import Interpreter, infer_types
from taut.transform import PASSES, apply_recipe, check_order, get_pass, missing_needs


def legal(names):
    try:
        check_order(names)
    except ArgumentError:
        return False
    return True


def test_names_titles_and_references_agree():
    for name, entry in PASSES.items():
        assert entry.name == name
        assert entry.title
        assert {*entry.after, *entry.conflicts} <= set(PASSES)
        json.dumps(dict(entry.defaults))


def test_the_catalogue_is_in_an_order_that_every_legal_recipe_may_keep():
    names = list(PASSES)
    for position, name in enumerate(names):
        assert set(PASSES[name].after) <= set(names[:position])
    kept = [name for name in names if name not in ("quantise", "w4a8_linear", "w4a4_linear", "w4a8_convolution")]
    check_order(kept)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ArgumentError, match="fold_batch_norm, fold_linear_chain"):
        get_pass("fold_batchnorm")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["bfloat16", "int8_linear"], "put int8_linear before bfloat16"),
        (["bfloat16", "bfloat16"], "remove the second bfloat16"),
        (["bfloat17"], "one of"),
        (["int8_linear", "w4a8_linear"], "remove int8_linear or w4a8_linear"),
        (["w4a4_linear", "w4a8_linear"], "not together"),
        (["int8_convolution", "w4a8_convolution"], "not together"),
        (["quantise", "quantised_embedding"], "not together"),
        (["int8_convolution", "channels_last"], "put channels_last before int8_convolution"),
    ],
)
def test_wrong_orders_say_what_to_do(names, said):
    with pytest.raises(ArgumentError, match=said):
        check_order(names)


def test_conflicts_are_named(monkeypatch):
    monkeypatch.setattr(type(get_pass("channels_last")), "conflicts", ("bfloat16",))
    with pytest.raises(ArgumentError, match="channels_last and bfloat16 not together"):
        check_order(["channels_last", "bfloat16"])


def test_missing_features_are_explained(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert "no bfloat16 dot product" in missing_needs(get_pass("bfloat16"))[0]
    assert missing_needs(get_pass("fold_batch_norm")) == ()


CONVOLUTIONAL = ("fold_batch_norm", "channels_last", "bfloat16", "fuse_convolution", "fuse_linear")
ATTENTIVE = ("merge_parallel_linear", "int8_linear", "bfloat16", "fuse_linear")


def orders(names, size):
    return [stack for stack in itertools.permutations(names, size) if legal(stack)]


@pytest.mark.parametrize("stack", [*orders(CONVOLUTIONAL, 2), *orders(CONVOLUTIONAL, 5)], ids="+".join)
def test_stacks_on_a_residual_network(residual, stack, tmp_path):
    after, changes = apply_recipe(residual, [(name, {}) for name in stack])
    assert [change.pass_name for change in changes] == list(stack)
    x = normal(5, 3, 16, 16)
    expected, got = Interpreter(residual)(x), Interpreter(after)(x)
    assert signal_to_noise(expected, got) > (33 if "bfloat16" in stack else 110)
    assert_survives_storage(after, tmp_path, x)


@pytest.mark.parametrize("stack", [*orders(ATTENTIVE, 2), *orders(ATTENTIVE, 3)], ids="+".join)
def test_stacks_on_an_encoder(encoder, stack, tmp_path):
    steps = [(name, {}) for name in stack]
    if {"int8_linear", "fuse_linear"} <= set(stack):
        with pytest.raises(EmptyChangeError, match="fuse_linear"):  # int8 left it nothing
            apply_recipe(encoder, steps)
        return
    after, _ = apply_recipe(encoder, steps)
    inputs = sentences(5, 11)
    expected, got = Interpreter(encoder)(*inputs), Interpreter(after)(*inputs)
    quality = 28 if "int8_linear" in stack else 35 if "bfloat16" in stack else 110
    assert signal_to_noise(expected, got) > quality
    assert_survives_storage(after, tmp_path, *inputs)


@pytest.mark.parametrize("name", [name for name in PASSES if name not in ("fold_linear_chain",)])
def test_what_changes_nothing_a_second_time_is_an_error(name, residual, encoder):
    applied = 0
    options = {"minimum_channels": 8} if name.endswith("_convolution") and "8" in name else {}
    for graph in (residual, encoder):
        if get_pass(name).applies(graph, **options):
            applied += 1
            again = get_pass(name).apply(graph, **options).graph
            assert not get_pass(name).applies(again, **options)
            with pytest.raises(EmptyChangeError):
                get_pass(name).apply(again, **options)
    assert applied


@pytest.mark.parametrize(
    "stack", [CONVOLUTIONAL, ("fold_batch_norm", "fuse_convolution"), ("channels_last",), ("bfloat16",)], ids="+".join
)
def test_recorded_types_are_those_of_the_operators(residual, mobile, stack):
    for graph in (residual, mobile):
        names = [name for name in stack if graph is residual or name != "fuse_linear"]
        after, _ = apply_recipe(graph, [(name, {}) for name in names])
        assert [node.outputs for node in infer_types(after).nodes] == [node.outputs for node in after.nodes]


def test_a_pass_leaves_the_graph_it_was_given(residual):
    x = normal(4, 3, 16, 16)
    before = Interpreter(residual)(x)
    apply_recipe(residual, [(name, {}) for name in CONVOLUTIONAL])
    assert torch.equal(Interpreter(residual)(x), before)
