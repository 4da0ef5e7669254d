"""Hashes do not depend on the process, names or places; cost keys hold what the time of an operation depends on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from taut.graph import Builder, Graph, Guard, TensorType, cost_key, structural_hash
from taut.graph._symbols import symbol

PROGRAM = """
from architectures import ARCHITECTURES, build, example
from taut.graph import bind_sizes, capture, cost_key, structural_hash
inputs = example("attention")
graph = capture(build("attention"), inputs, dynamic_shapes=ARCHITECTURES["attention"].dynamic_shapes)
sizes = bind_sizes(graph, *inputs)
print(structural_hash(graph), *(cost_key(graph, node, sizes, threads=1, target="t") for node in graph.nodes))
"""


def test_a_fresh_process_gives_the_same_hashes(captured: Callable[[str], Graph]) -> None:
    graph = captured("attention")
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    keys = [cost_key(graph, node, {"s0": 6}, threads=1, target="t") for node in graph.nodes]
    assert other == [structural_hash(graph), *keys]


def linear(
    *,
    weight: float = 1.0,
    name: str = "weight",
    width: int = 8,
    source: str = "",
    epsilon: float = 1e-5,
    guard: int = 1,
) -> Graph:
    kind = TensorType((symbol("s0"), width), torch.float32)
    builder = Builder()
    x = builder.input("x", kind)
    constant = builder.constant(torch.full((width,), weight), name)
    made = builder.add("aten.layer_norm.default", x, (width,), constant, None, epsilon, outputs=kind, source=source)
    return builder.finish(made, guards=(Guard(symbol("s0") > guard, "somewhere"),))  # pyright: ignore


@pytest.mark.parametrize("other", [{"name": "scale"}, {"source": "model.py:3"}])
def test_names_and_places_do_not_count(other: dict[str, str]) -> None:
    assert structural_hash(linear(**other)) == structural_hash(linear())  # pyright: ignore


@pytest.mark.parametrize("other", [{"weight": 2.0}, {"width": 4}, {"epsilon": 1e-6}, {"guard": 2}])
def test_what_is_computed_counts(other: dict[str, float]) -> None:
    assert structural_hash(linear(**other)) != structural_hash(linear())  # pyright: ignore


def key(graph: Graph, size: int = 3, threads: int = 1, target: str = "host") -> str:
    return cost_key(graph, graph.nodes[-1], {"s0": size}, threads=threads, target=target)


def test_a_cost_key_does_not_depend_on_the_weights() -> None:
    assert key(linear(weight=2.0, name="other", source="a.py:1")) == key(linear())
    assert key(linear()).startswith("aten.layer_norm.default:")


def test_a_cost_key_depends_on_sizes_arguments_threads_and_target() -> None:
    keys = [key(linear()), key(linear(), size=4), key(linear(), threads=2), key(linear(), target="other")]
    keys += [key(linear(epsilon=1e-6)), key(linear(width=4))]
    assert len(set(keys)) == len(keys)


def test_a_data_dependent_size_stays_symbolic() -> None:
    graph = linear()
    assert cost_key(graph, graph.nodes[-1], {}, threads=1, target="host") != key(graph)
