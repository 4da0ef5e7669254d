"""The operator within torch: opcheck, fake tensors, export, compile, the shared thread pool."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from taut.kernels import int8_linear, pack_int8_linear


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


@pytest.mark.parametrize("bias", [None, torch.randn(5)])
@pytest.mark.parametrize("x", [torch.randn(7), torch.randn(3, 7), torch.randn(2, 3, 7).to(torch.bfloat16)])
def test_opcheck(x: Tensor, bias: Tensor | None) -> None:
    packed, scales = pack_int8_linear(torch.randn(5, 7))
    torch.library.opcheck(torch.ops.taut.int8_linear.default, (x, packed, scales, bias, "relu"))


def test_fake_tensors_get_shape_and_dtype() -> None:
    layer = Int8Layer(5, 7)
    with FakeTensorMode(allow_non_fake_inputs=True):
        out = layer(torch.empty(2, 3, 7, dtype=torch.bfloat16))
    assert (out.shape, out.dtype) == ((2, 3, 5), torch.bfloat16)


def test_export_keeps_the_operator_whole_with_a_dynamic_batch() -> None:
    layer = Int8Layer(5, 7)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(layer, (torch.randn(3, 7),), dynamic_shapes={"x": {0: batch}})
    assert any(node.target == torch.ops.taut.int8_linear.default for node in program.graph.nodes)
    x = torch.randn(10, 7)
    assert torch.equal(program.module()(x), layer(x))


def test_inference_mode() -> None:
    layer = Int8Layer(5, 7)
    x = torch.randn(3, 7)
    with torch.inference_mode():
        inside = layer(x)
    assert torch.equal(inside, layer(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compile() -> None:
    layer = Int8Layer(5, 7)
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
