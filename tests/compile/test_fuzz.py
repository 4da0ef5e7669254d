"""Random graphs mean the same compiled and interpreted.

Generating kernels takes most of the time, so the fast tier runs 200 graphs as lowered blocks in plain torch and few as
compiled programs; the slow tier compiles 10,000.
"""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest
from block_reference import run
from fuzz_graphs import Case, differences, graphs
from hypothesis import HealthCheck, Phase, given, settings

import taut
from taut.codegen import build
from taut.compile import _generate
from taut.compile._prepare import prepare
from taut.compile._program import lower
from taut.graph import Interpreter

COMPILED = 20
"""Graphs that the fast tier compiles."""


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
        wrong = differences(run(blocks, inputs), flat(reference(*inputs)), case.tolerances)
        assert not wrong, (sizes, wrong)


def sample(count: int, seed: int) -> list[Case]:
    """Graphs, the same ones for the same seed."""
    found: list[Case] = []

    @hypothesis.seed(seed)
    @settings(max_examples=count, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(graphs())
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


def compare_compiled(cases: list[Case], patch: pytest.MonkeyPatch) -> None:
    """Compile the graphs, with all their kernels in one library, and compare with the interpreter."""
    recipes = {key: recipe for case in cases for key, recipe in lower(prepare(case.graph)).recipes().items()}
    built = build(recipes.values())
    assert not built.failed
    patch.setattr(_generate, "build", lambda *_, **__: built)
    for case in cases:
        reference = Interpreter(case.graph)
        compiled = taut.compile(case.graph)
        careful = compiled.session.executable.session(poison=True)
        for seed, sizes in enumerate(case.sizes):
            inputs = case.inputs(sizes, seed)
            kept = [value.clone() for value in inputs]
            wanted = flat(reference(*inputs))
            found = flat(compiled(*inputs))
            wrong = differences(found, wanted, case.tolerances) + differences(careful(*inputs), wanted, case.tolerances)
            assert not wrong, f"{case}\n{sizes}: {wrong}"


@pytest.mark.parametrize("seed", [0] if os.environ.get("CI") else [None])
def test_compiled_graphs_mean_what_the_graph_means(seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_compiled(sample(COMPILED, seed or 0), monkeypatch)
