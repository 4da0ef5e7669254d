"""The memory plan: what lives together lies apart, and little more than that is taken."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.compile._block import Block, CopyStep
from taut.compile._memory import ALIGNMENT, buffer_bytes, liveness, plan_memory
from taut.compile._views import Buffer, contiguous
from taut.graph import evaluate, symbol

S = symbol("s0")


def chain(sizes: list, extra_reads: dict[int, int]) -> Block:
    """Step i copies value i to value i + 1; value a is read once more at step extra_reads[a]."""
    views = [contiguous(Buffer("arena", torch.float32, size), (size,)) for size in sizes]
    steps = []
    for position in range(len(views) - 1):
        steps.append(CopyStep(views[position], views[position + 1]))
        steps += [CopyStep(views[a], views[position + 1]) for a, at in extra_reads.items() if at == position and a < at]
    return Block("main", (), tuple(steps), (), ())


@given(
    st.lists(
        st.one_of(st.integers(1, 500), st.builds(lambda a, b: a * S + b, st.integers(1, 64), st.integers(0, 64))),
        min_size=2,
        max_size=12,
    ),
    st.dictionaries(st.integers(0, 10), st.integers(0, 11)),
    st.integers(1, 600),
)
def test_buffers_that_live_together_do_not_overlap(sizes: list, reads: dict[int, int], length: int) -> None:
    block = chain(sizes, reads)
    plan = plan_memory(block, {"s0": 97})
    live = liveness(block)
    known = {"s0": length}
    spans = {}
    for buffer in live:
        start = evaluate(plan.offsets[buffer], known)
        spans[buffer] = (start, start + evaluate(buffer_bytes(buffer), known))
        assert start % ALIGNMENT == 0
        assert spans[buffer][1] <= evaluate(plan.total, known)
    for a in live:
        for b in live:
            together = a is not b and not (live[a][1] < live[b][0] or live[b][1] < live[a][0])
            assert not together or spans[a][1] <= spans[b][0] or spans[b][1] <= spans[a][0]
    assert evaluate(plan.total, known) >= plan.lower_bound(known)


@pytest.mark.parametrize("length", [1, 64, 512])
def test_a_chain_of_equal_sizes_takes_two_buffers(length: int) -> None:
    plan = plan_memory(chain([64 * S] * 9, {}), {"s0": 97})
    assert evaluate(plan.total, {"s0": length}) == 2 * 256 * length == plan.lower_bound({"s0": length})
