"""Random graphs mean the same compiled and interpreted.

Generating kernels takes most of the time, so all graphs of a test share one library. The fast tier runs 200 graphs as
lowered blocks in plain torch and 200 with few costly kernels as compiled programs; the slow tier compiles 10,000.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from block_reference import run
from fuzz_graphs import Case, differences, graphs
from hypothesis import HealthCheck, Phase, given, note, settings

import taut
from taut.codegen import Recipe, build
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


def recipes_of(case: Case) -> dict[str, Recipe]:
    """The kernels of a graph, by key."""
    return lower(prepare(case.graph)).recipes()


def affordable(cases: list[Case], count: int) -> list[Case]:
    """So many of the graphs, with few different kernels of the templates that take long to generate."""
    left = {"attention": 4, "convolution": 6, "linear": 12, "matmul": 8, "pool": 6}
    chosen: list[Case] = []
    known: set[str] = set()
    for case in cases:
        new = {key: recipe.template for key, recipe in recipes_of(case).items() if key not in known}
        templates = Counter(new.values())
        if len(chosen) < count and all(left.get(template, 999) >= number for template, number in templates.items()):
            chosen.append(case)
            known |= new.keys()
            left |= {template: left[template] - templates[template] for template in left}
    return chosen


def compare_compiled(cases: list[Case]) -> None:
    """Compile the graphs, with all their kernels in one library, and compare with the interpreter."""
    recipes = {key: recipe for case in cases for key, recipe in recipes_of(case).items()}
    built = build(recipes.values())
    assert not built.failed, [(recipes[key], reason) for key, reason in built.failed.items()]
    for case in cases:
        with pytest.MonkeyPatch.context() as patch:
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
    seed = 0 if os.environ.get("CI") else random.randrange(2**32)
    cases = affordable(sample(260, seed), 200)
    assert len(cases) == 200
    compare_compiled(cases)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_ten_thousand_compiled_graphs_mean_what_the_graphs_mean(seed: int) -> None:
    compare_compiled(sample(200, seed))
