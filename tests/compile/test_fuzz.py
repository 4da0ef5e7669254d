"""Random graphs mean the same compiled and interpreted.

Generating kernels takes most of the time, so the fast tier runs 200 graphs as lowered blocks in plain torch and few as
compiled programs; the slow tier compiles 10,000.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from block_reference import run
from fuzz_graphs import Case, differences, graphs
from hypothesis import HealthCheck, Phase, given, note, settings

import taut
from taut.codegen import build
from taut.compile import _generate
from taut.compile._prepare import prepare
from taut.compile._program import lower
from taut.graph import Interpreter
from taut.runtime import load


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
    note(repr(case))
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
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(graphs())
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


def compare_compiled(cases: list[Case]) -> None:
    """Compile the graphs, with all their kernels in one library, and compare with the interpreter.

    A graph with a kernel that cannot be generated is built apart, and runs in part on ATen.
    """
    recipes = {key: recipe for case in cases for key, recipe in lower(prepare(case.graph)).recipes().items()}
    built = build(recipes.values())
    for case in cases:
        with pytest.MonkeyPatch.context() as patch:
            if not built.failed.keys() & lower(prepare(case.graph)).recipes().keys():
                patch.setattr(_generate, "build", lambda *_, **__: built)
            compiled = taut.compile(case.graph)
            program = compiled.lowered.program
            library = _generate.library_of(program, _generate.generate(program))
        poisoned = load(program, library).session(poison=True)
        compare(case, Interpreter(case.graph), lambda *inputs, run=compiled: flat(run(*inputs)), poisoned)


def compare(case: Case, reference: Interpreter, *programs: Callable[..., list[Any]]) -> None:
    """Results are those of the interpreter, stay what they are in the next call, and share no memory with inputs."""
    for program in programs:
        for seed, sizes in enumerate(case.sizes):
            inputs = case.inputs(sizes, seed)
            wanted = flat(reference(*inputs))
            found = program(*inputs)
            program(*case.inputs(sizes, seed + 100))
            for value in inputs:
                value.zero_()
            wrong = differences(found, wanted, case.tolerances)
            assert not wrong, f"{case}\n{sizes}: {wrong}"


def test_compiled_graphs_mean_what_the_graph_means() -> None:
    compare_compiled(sample(40, seed=random.randrange(2**32) if not os.environ.get("CI") else 0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_ten_thousand_compiled_graphs_mean_what_the_graphs_mean(seed: int) -> None:
    compare_compiled(sample(200, seed))
