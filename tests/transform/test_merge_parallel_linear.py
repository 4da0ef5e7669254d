"""Linear layers on one input become one."""

import pytest
from by_hand import assert_same, by_hand, call, normal, ops

from taut.errors import EmptyChangeError
from taut.transform import get_pass

MERGE = get_pass("merge_parallel_linear")


def projections(biases):
    def body(builder, x):
        made = []
        for index, (width, bias) in enumerate(zip((6, 4, 6), biases, strict=True)):
            weight = builder.constant(normal(width, 8, seed=index), f"w{index}")
            shift = builder.constant(normal(width, seed=index + 9), f"b{index}") if bias else None
            y = call(builder, "aten.linear.default", x, weight, shift)
            made.append(call(builder, "aten.reshape.default", y, (-1, width)))
        return call(builder, "aten.cat.default", tuple(made), 1)

    return by_hand(body, (2, 3, 8))


@pytest.mark.parametrize("biases", [(True, True, True), (False, False, False), (True, False, True)])
def test_three_projections_become_one_product_and_a_split(biases):
    graph = projections(biases)
    change = MERGE.apply(graph)
    assert ops(change.graph)[:2] == ["aten.linear.default", "aten.split_with_sizes.default"]
    assert ops(change.graph).count("aten.linear.default") == 1
    (replacement,) = change.replaced
    assert replacement.old_ops == ("aten.linear.default",) * 3
    assert_same(graph, change.graph, normal(2, 3, 8))
    with pytest.raises(EmptyChangeError):
        MERGE.apply(change.graph)


def test_layers_on_different_inputs_stay_apart():
    def body(builder, x, y):
        weight = builder.constant(normal(4, 8), "w")
        return tuple(call(builder, "aten.linear.default", value, weight) for value in (x, y))

    assert "same value" in MERGE.applies(by_hand(body, (2, 8), (2, 8))).reason


def test_a_layer_that_reads_another_one_is_not_merged_with_it():
    def body(builder, x):
        y = call(builder, "aten.linear.default", x, builder.constant(normal(8, 8), "w0"))
        z = call(builder, "aten.linear.default", y, builder.constant(normal(8, 8, seed=1), "w1"))
        return call(builder, "aten.linear.default", x, z)

    assert not MERGE.applies(by_hand(body, (8, 8)))
