"""The convolutions within torch: opcheck, fake tensors, export, compile."""

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from taut.kernels import pack_int8_convolution, pack_vector_convolution
from taut.kernels._load import _native


class Layer(torch.nn.Module):
    packed: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, coding: str) -> None:
        super().__init__()
        if coding == "int8":
            packed, scales = pack_int8_convolution(torch.randn(7, 5, 3, 3))
        else:
            scales = torch.rand(7)
            codes = torch.randint(-7, 8, (7, 9, 5), dtype=torch.int8)
            packed = pack_vector_convolution(codes, torch.ones(7, 9, 1, dtype=torch.uint8), scales)
        operators = torch.ops.taut
        self.operator = operators.int8_convolution if coding == "int8" else operators.vector_convolution
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", torch.randn(7))

    def forward(self, x: Tensor) -> Tensor:
        geometry = ([3, 3], [2, 1], [1, 0], [1, 1])
        return self.operator(x, self.packed, self.scales, self.bias, *geometry, "relu") * 2


@pytest.fixture(params=["int8", "vectors"])
def layer(request: pytest.FixtureRequest) -> Layer:
    return Layer(request.param)


@pytest.mark.parametrize("images", [0, 1, 3])
def test_reading_tensors_by_their_attributes_gives_the_same(layer: Layer, images: int) -> None:
    x = torch.randn(images, 5, 6, 8)
    expected = layer(x)
    assert not _native.bind_tensor_type(torch.Tensor, False)
    try:
        out = layer(x)
    finally:
        _native.bind_tensor_type(torch.Tensor, True)
    assert out.stride() == expected.stride() == torch.empty(images, 3, 6, 7).permute(0, 3, 1, 2).stride()
    assert torch.equal(out, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(layer: Layer, layout: torch.memory_format, dtype: torch.dtype) -> None:
    x = torch.randn(2, 5, 6, 8, dtype=dtype).contiguous(memory_format=layout)
    geometry = ([3, 3], [2, 1], [1, 0], [1, 1])
    torch.library.opcheck(layer.operator.default, (x, layer.packed, layer.scales, None, *geometry, "relu"))


def test_fake_tensors_get_shape_dtype_and_strides(layer: Layer) -> None:
    real = layer(torch.randn(2, 5, 6, 8, dtype=torch.bfloat16))
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = layer(torch.empty(2, 5, 6, 8, dtype=torch.bfloat16))
    assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


def test_export_keeps_the_operator_whole_with_dynamic_sizes(layer: Layer) -> None:
    sizes = {"x": {0: torch.export.Dim("batch", min=1, max=64), 2: torch.export.Dim("height", min=3, max=640)}}
    program = torch.export.export(layer, (torch.randn(3, 5, 8, 6),), dynamic_shapes=sizes)
    assert any(node.target == layer.operator.default for node in program.graph.nodes)
    x = torch.randn(2, 5, 21, 6)
    assert torch.equal(program.module()(x), layer(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compile(layer: Layer) -> None:
    x = torch.randn(2, 5, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))
