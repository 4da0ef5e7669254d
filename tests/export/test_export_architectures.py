"""Every architecture of the tests computes the same in onnxruntime, at every size."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx_runs import leaves, operations, run, session

from architectures import ARCHITECTURES, captured, example
from taut.export import export_onnx
from taut.graph import Interpreter


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_computes_the_same_at_every_size(name: str, tmp_path: Path) -> None:
    graph = captured(name)
    export_onnx(graph, tmp_path / "model.onnx")
    model, interpreter = session(tmp_path / "model.onnx"), Interpreter(graph)
    for size in ARCHITECTURES[name].sizes:
        inputs = example(name, size)
        made, wanted = run(model, *leaves(inputs)), leaves(interpreter(*inputs))
        assert [(one.dtype, one.shape) for one in made] == [(one.dtype, one.shape) for one in wanted]
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def test_dynamic_dimensions_and_names_are_kept(tmp_path: Path) -> None:
    export_onnx(captured("encoder"), tmp_path / "model.onnx")
    body = onnx.load(tmp_path / "model.onnx").graph

    def described(values):
        return {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in values
        }

    assert described(body.input) == {"ids": ["s0", "s1"], "mask": ["s0", "s1"]}
    assert described(body.output) == {"hidden": ["s0", "s1", 16], "pooled": ["s0", 16]}


def test_a_nested_output_is_named_by_its_place(tmp_path: Path) -> None:
    export_onnx(captured("gated_cell"), tmp_path / "model.onnx")
    names = [value.name for value in onnx.load(tmp_path / "model.onnx").graph.output]
    assert names == ["output_0", "output_1.0", "output_1.1"]


def test_control_flow_stays_control_flow(tmp_path: Path) -> None:
    export_onnx(captured("branching"), tmp_path / "branches.onnx")
    export_onnx(captured("loop_lstm"), tmp_path / "loop.onnx")
    assert "If" in operations(tmp_path / "branches.onnx")
    assert "Loop" in operations(tmp_path / "loop.onnx")


def test_the_model_carries_its_own_weights_once(tmp_path: Path) -> None:
    """A layer used at both ends of the model is stored once."""
    (path,) = export_onnx(captured("gated_cell"), tmp_path / "model.onnx")
    shapes = [tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer]
    assert shapes.count((6, 6)) == 1
