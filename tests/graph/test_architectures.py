"""The interpreter reproduces real architectures; costs and files of their graphs are exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from architectures import ARCHITECTURES, build, example
from taut.errors import GuardError
from taut.graph import (
    Graph,
    Interpreter,
    bind_sizes,
    evaluate,
    graph_cost,
    infer_types,
    load_graph,
    save_graph,
    structural_hash,
    validate,
)

Captured = Callable[[str], Graph]
NAMES = sorted(ARCHITECTURES)
# Recurrent layers and cells run in kernels that FlopCounterMode does not see whole, and it runs a loop's body once.
COUNTED = [name for name in NAMES if name not in ("recurrent", "loop_lstm", "gated_cell", "branching")]


def flops(model: torch.nn.Module, inputs: tuple[Any, ...]) -> int:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # the counter knows no CPU attention kernel; the math form runs the same products one by one
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_the_modules_at_every_size(name: str, captured: Captured) -> None:
    model, run = build(name), Interpreter(captured(name))
    for size in ARCHITECTURES[name].sizes:
        inputs = example(name, size)
        kept = [item.clone() for item in inputs]
        with torch.no_grad():
            expected = model(*inputs)
        torch.testing.assert_close(run(*inputs), expected)
        torch.testing.assert_close(run(*inputs), run(*inputs), rtol=0, atol=0)
        torch.testing.assert_close(list(inputs), kept, rtol=0, atol=0)


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_accumulates_are_half_of_torchs_flops(name: str, captured: Captured) -> None:
    graph, model = captured(name), build(name)
    for size in ARCHITECTURES[name].sizes:
        inputs = example(name, size)
        sizes = bind_sizes(graph, *inputs)
        if name == "detector":
            sizes["u0"] = len(model(*inputs)[1])  # the number of detections is known at run time only
        assert evaluate(graph_cost(graph).macs, sizes) * 2 == flops(model, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_exact_sum(name: str, captured: Captured) -> None:
    assert graph_cost(captured(name)).parameters == sum(item.numel() for item in build(name).parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_graph_is_the_same_graph(name: str, captured: Captured, tmp_path: Path) -> None:
    graph = captured(name)
    save_graph(graph, tmp_path / "graph.json", tmp_path / "model.safetensors")
    loaded = load_graph(tmp_path / "graph.json", tmp_path / "model.safetensors")
    assert loaded == graph
    assert structural_hash(loaded) == structural_hash(graph)
    inputs = example(name)
    torch.testing.assert_close(Interpreter(loaded)(*inputs), Interpreter(graph)(*inputs), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_inferred_types_are_those_recorded_by_export(name: str, captured: Captured) -> None:
    graph = captured(name)
    validate(graph, content=True)
    assert infer_types(graph) == graph


@pytest.mark.parametrize("name", [name for name in NAMES if name != "detector"])
def test_sizes_outside_of_the_range_are_refused(name: str, captured: Captured) -> None:
    graph = captured(name)
    limits = graph.symbols["s1" if name == "encoder" else "s0"]
    assert limits.upper is not None
    for size in (0, 1, limits.upper + 1):
        with pytest.raises(GuardError, match=rf"dimension \d is {size}\n.*<= s\d <= {limits.upper}"):
            Interpreter(graph)(*ARCHITECTURES[name].inputs(size))


@pytest.mark.parametrize("name", NAMES)
def test_no_operator_writes_to_its_inputs(name: str, captured: Captured) -> None:
    def operators(graph: Graph) -> list[str]:
        found = [node.op for node in graph.nodes]
        return found + [op for node in graph.nodes for region in node.regions for op in operators(region)]

    assert not [op for op in operators(captured(name)) if op.split(".")[-2:-1] and op.split(".")[-2].endswith("_")]


@pytest.mark.parametrize(
    ("name", "compounds"),
    [
        ("encoder", {"scaled_dot_product_attention": 2, "linear": 8, "layer_norm": 4, "gelu": 2, "embedding": 2}),
        ("attention", {"scaled_dot_product_attention": 1, "layer_norm": 1}),
        ("recurrent", {"lstm": 1, "gru": 1}),
        ("resnet", {"conv2d": 6, "batch_norm": 6, "adaptive_avg_pool2d": 1}),
        ("depthwise", {"conv2d": 3, "hardswish": 1, "silu": 1}),
        ("unet", {"group_norm": 1, "max_pool2d": 1, "upsample_bilinear2d": 1}),
    ],
)
def test_compound_operators_stay_whole(name: str, compounds: dict[str, int], captured: Captured) -> None:
    names = [node.op.split(".")[1] for node in captured(name).nodes if node.op.startswith("aten.")]
    assert {compound: names.count(compound) for compound in compounds} == compounds


def test_a_loops_cost_is_its_bodys_times_its_length(captured: Captured) -> None:
    graph = captured("loop_lstm")
    cost = graph_cost(graph)
    assert cost.exact
    for length in (2, 7, 32):
        # per step and sequence: four gates, each from 6 inputs and 8 states
        assert evaluate(cost.macs, {"s0": length}) == length * 2 * 4 * 8 * (6 + 8)


def test_a_whole_recurrent_layer_counts_each_weight_matrix_once_a_token(captured: Captured) -> None:
    lstm = 2 * (4 * 5 * (6 + 5) + 4 * 5 * (10 + 5))
    gru = 3 * 4 * (10 + 4)
    assert evaluate(graph_cost(captured("recurrent")).macs, {"s0": 9}) == 2 * 9 * (lstm + gru)


def test_a_gated_cell_counts_its_gates_and_the_convolution_beside_them(captured: Captured) -> None:
    linear, gates, convolution = 2 * 6 * 6, 3 * 7 * (6 + 7), 2 * 3 * 7
    assert evaluate(graph_cost(captured("gated_cell")).macs, {"s0": 5}) == 5 * (linear + gates + convolution)


def test_a_branch_costs_its_dearer_side(captured: Captured) -> None:
    assert evaluate(graph_cost(captured("branching")).macs, {"s0": 5}) == 5 * 6 * 6


def test_a_tied_weight_is_stored_and_counted_once(captured: Captured) -> None:
    graph = captured("gated_cell")
    assert sum(tuple(item.shape) == (6, 6) for item in graph.constants.values()) == 1


def test_too_many_detections_fail_loudly(captured: Captured) -> None:
    features, _ = example("detector", 40)
    with pytest.raises(GuardError, match=r"runtime assertion .*u0 <= 12 \(architectures.py:\d+\)"):
        Interpreter(captured("detector"))(features, torch.tensor(0.0))
