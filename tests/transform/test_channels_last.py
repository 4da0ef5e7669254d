"""Convolution weights and images in channels_last order."""

import pytest
import torch
from by_hand import assert_same, assert_survives_storage, normal, ops

from taut.errors import EmptyChangeError
from taut.graph import Interpreter
from taut.transform import get_pass

LAST = get_pass("channels_last")


def test_weights_entries_and_recorded_layouts(residual, tmp_path):
    change = LAST.apply(residual)
    after = change.graph
    assert len(change.replaced) == 5
    convolutions = [node for node in after.nodes if node.op == "aten.conv2d.default"]
    for node in convolutions:
        weight = after.constant(node.args[1])
        assert weight is not None
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert node.type.layout == "channels_last"
    assert ops(after).count("aten.contiguous.default") == 1  # the image, once
    for batch in (2, 7):
        assert_same(residual, after, normal(batch, 3, 16, 16))
    assert_survives_storage(after, tmp_path, normal(3, 3, 16, 16))


def test_an_image_comes_out_contiguous(mobile):
    after = LAST.apply(mobile).graph
    got = Interpreter(after)(normal(2, 8, 6, 6))
    assert got.is_contiguous()
    assert_same(mobile, after, normal(2, 8, 6, 6))


def test_a_second_time_there_is_nothing_left(residual):
    with pytest.raises(EmptyChangeError):
        LAST.apply(LAST.apply(residual).graph)


def test_pointwise_and_depthwise_weights_have_both_orders_and_only_images_are_reordered(mobile):
    after = LAST.apply(mobile).graph
    assert ops(after)[0] == "aten.contiguous.default"
    assert {node.type.layout for node in after.nodes if node.op == "aten.conv2d.default"} == {"channels_last"}
    assert dict(after.constants).keys() == dict(mobile.constants).keys()
    with pytest.raises(EmptyChangeError):
        LAST.apply(after)


def test_sequences_and_linear_layers_are_not_concerned(encoder):
    assert "2-d convolution" in LAST.applies(encoder).reason
