"""Arithmetic in bfloat16, with float32 kept where it matters."""

import pytest
import torch
from by_hand import assert_same, by_hand, call, normal, ops, sentences, signal_to_noise

from taut.errors import EmptyChangeError
from taut.graph import Interpreter
from taut.transform import get_pass

BFLOAT16 = get_pass("bfloat16")


def kinds(graph, op):
    return [node.type.dtype for node in graph.nodes if node.op == op]


@pytest.mark.parametrize(("batch", "length"), [(3, 9), (2, 2), (5, 64)])
def test_encoder_stays_close_at_every_length(encoder, batch, length):
    after = BFLOAT16.apply(encoder).graph
    inputs = sentences(batch, length)
    expected, got = Interpreter(encoder)(*inputs), Interpreter(after)(*inputs)
    assert got.dtype == torch.float32
    assert signal_to_noise(expected, got) > 35  # bfloat16 has 8 bits of precision


def test_a_fully_masked_row_stays_finite(encoder):
    ids, mask = sentences(3, 6)
    mask[1] = 0
    got = Interpreter(BFLOAT16.apply(encoder).graph)(ids, mask)
    assert bool(torch.isfinite(got).all())


def test_what_runs_in_bfloat16_and_what_does_not(encoder):
    after = BFLOAT16.apply(encoder).graph
    assert set(kinds(after, "aten.linear.default")) == {torch.bfloat16}
    assert kinds(after, "aten.scaled_dot_product_attention.default") == [torch.bfloat16]
    assert set(kinds(after, "aten.layer_norm.default")) == {torch.bfloat16}
    assert set(kinds(after, "aten.embedding.default")) == {torch.float32}
    for node in after.nodes:
        if node.op == "aten.layer_norm.default":
            scale = after.constant(node.args[2])
            assert scale is not None
            assert scale.dtype == torch.float32


def test_residual_network_at_another_batch_size(residual):
    x = normal(7, 3, 16, 16)
    got = Interpreter(BFLOAT16.apply(residual).graph)(x)
    assert signal_to_noise(Interpreter(residual)(x), got) > 35


def test_exponentials_and_control_of_range_keep_float32():
    def body(builder, x):
        y = call(builder, "aten.linear.default", x, builder.constant(normal(8, 8), "w"))
        return call(builder, "aten.exp.default", call(builder, "aten.relu.default", y))

    after = BFLOAT16.apply(by_hand(body, (4, 8))).graph
    assert kinds(after, "aten.relu.default") == [torch.bfloat16]
    assert kinds(after, "aten.exp.default") == [torch.float32]


def test_a_finite_constant_stays_finite():
    lowest = torch.full((8,), torch.finfo(torch.float32).min)

    def body(builder, x):
        y = call(builder, "aten.linear.default", x, builder.constant(normal(8, 8), "w"))
        return call(builder, "aten.maximum.default", y, builder.constant(lowest, "lowest"))

    graph = by_hand(body, (4, 8))
    after = BFLOAT16.apply(graph).graph
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.constants.values())
    assert_same(graph, after, normal(4, 8), tolerance=0.02)


def test_a_second_time_there_is_nothing_left(residual):
    after = BFLOAT16.apply(residual).graph
    with pytest.raises(EmptyChangeError):
        BFLOAT16.apply(after)


def test_without_matrix_products_nothing_changes():
    graph = by_hand(lambda builder, x: call(builder, "aten.relu.default", x), (2, 3))
    assert "no matrix product" in BFLOAT16.applies(graph).reason
    assert ops(graph) == ["aten.relu.default"]
