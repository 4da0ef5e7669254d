"""Two linear maps become one where that is cheaper."""

import itertools

import pytest
from by_hand import assert_same, by_hand, call, normal, ops
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.errors import EmptyChangeError
from taut.transform import get_pass

FOLD = get_pass("fold_linear_chain")
LINEAR, CONVOLUTION = "aten.linear.default", "aten.conv2d.default"


def linear(builder, x, outputs, inputs, *, seed=1, bias=True):
    shift = builder.constant(normal(outputs, seed=seed + 50), f"b{seed}") if bias else None
    return call(builder, LINEAR, x, builder.constant(normal(outputs, inputs, seed=seed), f"w{seed}"), shift)


def chain(*widths, bias=True):
    def body(builder, x):
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            x = linear(builder, x, outputs, inputs, seed=index + 1, bias=bias)
        return x

    return by_hand(body, (2, 7, widths[0]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("widths", [(8, 32, 8), (8, 8, 8), (6, 20, 20, 4)])
def test_wide_chains_collapse(widths, bias):
    graph = chain(*widths, bias=bias)
    change = FOLD.apply(graph)
    assert ops(change.graph) == [LINEAR]
    assert_same(graph, change.graph, normal(2, 7, widths[0]), tolerance=2e-6)


def test_a_low_rank_bottleneck_is_a_saving_and_stays():
    with pytest.raises(EmptyChangeError, match="cheaper than its product"):
        FOLD.apply(chain(32, 4, 32))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_folds_exactly_when_multiplications_are_saved(inputs, middle, outputs):
    saved = inputs * outputs < inputs * middle + middle * outputs
    assert FOLD.applies(chain(inputs, middle, outputs)).count == int(saved)


def test_left_alone_when_the_middle_is_used_elsewhere():
    def body(builder, x):
        y = linear(builder, x, 32, 8)
        return (y, linear(builder, y, 8, 32, seed=2))

    with pytest.raises(EmptyChangeError):
        FOLD.apply(by_hand(body, (2, 8)))


def pair(first, second):
    """Two convolutions, each given as (out, in, kernel, stride, padding, bias, groups)."""

    def body(builder, x):
        for seed, (outputs, inputs, kernel, stride, padding, bias, groups) in enumerate((first, second)):
            weight = builder.constant(normal(outputs, inputs // groups, kernel, kernel, seed=seed), f"w{seed}")
            shift = builder.constant(normal(outputs, seed=seed + 9), f"b{seed}") if bias else None
            window = ((stride, stride), (padding, padding), (1, 1), groups)
            x = call(builder, CONVOLUTION, x, weight, shift, *window)
        return x

    return by_hand(body, (2, first[1], 9, 9))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((32, 4, 3, 1, 1, True, 1), (4, 32, 1, 1, 0, True, 1)),
        ((32, 4, 3, 2, 0, False, 1), (4, 32, 1, 1, 0, False, 1)),
        ((32, 4, 1, 1, 0, True, 1), (4, 32, 3, 1, 0, True, 1)),
        ((32, 4, 1, 1, 0, False, 1), (4, 32, 3, 2, 1, True, 1)),
        ((32, 4, 1, 1, 0, True, 1), (4, 32, 1, 1, 0, False, 1)),
    ],
)
def test_convolution_pairs_with_a_pointwise_member(first, second):
    graph = pair(first, second)
    change = FOLD.apply(graph)
    assert ops(change.graph) == [CONVOLUTION]
    assert_same(graph, change.graph, normal(2, first[1], 9, 9), tolerance=2e-6)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((32, 4, 1, 1, 0, True, 1), (4, 32, 3, 1, 1, True, 1)),  # the padding does not hold the first's bias
        ((32, 4, 3, 1, 1, True, 1), (4, 32, 3, 1, 1, True, 1)),  # the product has a larger kernel
        ((32, 4, 3, 1, 1, True, 1), (4, 32, 1, 2, 0, True, 1)),  # the second drops positions
        ((32, 4, 3, 1, 1, True, 2), (4, 32, 1, 1, 0, True, 1)),  # grouped
    ],
)
def test_other_convolution_pairs_stay(first, second):
    assert not FOLD.applies(pair(first, second))
