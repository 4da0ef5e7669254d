"""The listing of a graph."""

from __future__ import annotations

from collections.abc import Callable

import torch

from taut.graph import Builder, Graph, Guard, SymbolRange, TensorType, format_graph
from taut.graph._symbols import symbol


def test_a_small_graph_reads_like_this() -> None:
    kind = TensorType((symbol("s0"), 4), torch.bfloat16)
    builder = Builder()
    x = builder.input("x", kind)
    weight = builder.constant(torch.ones(4, dtype=torch.bfloat16), "norm.weight")
    made = builder.add(
        "aten.layer_norm.default", x, (4,), weight, outputs=kind, module_path="norm", source="model.py:7"
    )
    made = builder.add("aten.sum.default", made, kwargs={"dtype": torch.float32}, outputs=TensorType((), torch.float32))
    graph = builder.finish(
        {"total": made, "rest": [None, 2]},
        symbols={"s0": SymbolRange(2, 9)},
        guards=(Guard(symbol("s0") > 3),),  # pyright: ignore
    )
    assert format_graph(graph) == (
        "graph(x: bf16[s0, 4])\n"
        "  where 2 <= s0 <= 9\n"
        "  guard s0 > 3\n"
        "  %2 = aten.layer_norm.default(x, [4], @norm.weight) -> bf16[s0, 4]  # norm  model.py:7\n"
        "  %3 = aten.sum.default(%2, dtype=float32) -> f32[]\n"
        "  return {total: %3, rest: (None, 2)}"
    )


def test_regions_are_indented_and_run_time_sizes_marked(captured: Callable[[str], Graph]) -> None:
    loop = format_graph(captured("loop_lstm"))
    assert "= while_loop([" in loop
    assert "\n    graph(" in loop
    assert "aten.lstm_cell.default(" in loop
    detector = format_graph(captured("detector"))
    assert "where 0 <= u0 <= 12, known at run time" in detector
    assert "check(" in detector
