"""Random graphs mean the same compiled and interpreted."""

from typing import Any

from block_reference import run
from fuzz_graphs import Case, differences, graphs
from hypothesis import HealthCheck, given, settings

from taut.compile._prepare import prepare
from taut.compile._program import lower
from taut.graph import Interpreter


def flat(results: Any) -> list[Any]:
    """The outputs of a graph as a list."""
    return list(results) if isinstance(results, tuple) else [results]


@given(graphs())
@settings(
    max_examples=200,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_lowered_blocks_mean_what_the_graph_means(case: Case) -> None:
    reference = Interpreter(case.graph)
    blocks = lower(prepare(case.graph)).blocks
    for seed, sizes in enumerate(case.sizes):
        inputs = case.inputs(sizes, seed)
        wanted = flat(reference(*inputs))
        wrong = differences(run(blocks, inputs), wanted, case.tolerances)
        assert not wrong, (sizes, wrong)
