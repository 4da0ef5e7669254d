"""The operator within torch: opcheck, fake tensors, export, compile, the shared thread pool."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from vector_reference import random_weights

from taut.kernels import int8_linear, pack_int8_linear, pack_vector_linear


class Int8Layer(torch.nn.Module):
    packed: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        packed, scales = pack_int8_linear(torch.randn(channels, features))
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.taut.int8_linear(x, self.packed, self.scales, self.bias, "gelu") * 2


class VectorLayer(torch.nn.Module):
    packed: Tensor
    gammas: Tensor

    def __init__(self, channels: int, features: int, inputs: str) -> None:
        super().__init__()
        weights = random_weights(channels, features, torch.Generator().manual_seed(0))
        self.register_buffer("packed", pack_vector_linear(weights.codes, weights.scales, weights.gammas))
        self.register_buffer("gammas", weights.gammas)
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.taut.vector_linear(x, self.packed, self.gammas, None, "gelu", self.inputs) * 2


@pytest.mark.parametrize("bias", [None, torch.randn(5)])
@pytest.mark.parametrize("x", [torch.randn(7), torch.randn(3, 7), torch.randn(2, 3, 7).to(torch.bfloat16)])
def test_opcheck(x: Tensor, bias: Tensor | None) -> None:
    packed, scales = pack_int8_linear(torch.randn(5, 7))
    torch.library.opcheck(torch.ops.taut.int8_linear.default, (x, packed, scales, bias, "relu"))


@pytest.mark.parametrize("inputs", ["int8", "vsq4"])
@pytest.mark.parametrize("x", [torch.randn(7), torch.randn(2, 3, 7).to(torch.bfloat16)])
def test_opcheck_of_vector_linear(x: Tensor, inputs: str) -> None:
    layer = VectorLayer(5, 7, inputs)
    given = (x, layer.packed, layer.gammas, torch.randn(5), "relu", inputs)
    torch.library.opcheck(torch.ops.taut.vector_linear.default, given)


LAYERS = (Int8Layer(5, 7), VectorLayer(5, 7, "int8"), VectorLayer(5, 7, "vsq4"))


@pytest.mark.parametrize("layer", LAYERS)
def test_fake_tensors_get_shape_and_dtype(layer: torch.nn.Module) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        out = layer(torch.empty(2, 3, 7, dtype=torch.bfloat16))
    assert (out.shape, out.dtype) == ((2, 3, 5), torch.bfloat16)


@pytest.mark.parametrize("layer", LAYERS)
def test_export_keeps_the_operator_whole_with_a_dynamic_batch(layer: torch.nn.Module) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(layer, (torch.randn(3, 7),), dynamic_shapes={"x": {0: batch}})
    operators = {torch.ops.taut.int8_linear.default, torch.ops.taut.vector_linear.default}
    assert any(node.target in operators for node in program.graph.nodes)
    x = torch.randn(10, 7)
    assert torch.equal(program.module()(x), layer(x))


@pytest.mark.parametrize("layer", LAYERS)
def test_inference_mode(layer: torch.nn.Module) -> None:
    x = torch.randn(3, 7)
    with torch.inference_mode():
        inside = layer(x)
    assert torch.equal(inside, layer(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("layer", LAYERS)
def test_compile(layer: torch.nn.Module) -> None:
    x = torch.randn(10, 7)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the maps of the process from /proc")
def test_kernels_and_torch_share_one_openmp_runtime(two_threads: None) -> None:
    packed, scales = pack_int8_linear(torch.randn(256, 256))
    int8_linear(torch.randn(256, 256), packed, scales)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    runtimes = {line.split()[-1] for line in maps if "libgomp" in line or "libomp" in line or "libiomp" in line}
    inside_torch = {path for path in runtimes if path.startswith(str(Path(torch.__file__).parent))}
    assert len(inside_torch) == 1
    others = {path for path in runtimes - inside_torch if "scikit_learn" not in path}
    assert not others
