"""Integer layers sum the same integers in onnxruntime; the rest differs by float32 rounding only."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx_runs import both, one_operator, operations
from torch import Tensor

from taut.errors import ExportError
from taut.export import export_onnx
from taut.graph import Builder, Graph, Ref, TensorType
from taut.kernels import pack_int8_convolution, pack_int8_linear, pack_vector_convolution, pack_vector_linear
from taut.numerics import convolution_rows, encode

ULP = torch.finfo(torch.float32).eps
FEATURES, CHANNELS = 70, 37  # neither a multiple of any block


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_equal_but_for_rounding(made: Tensor, wanted: Tensor, bias: Tensor | None = None) -> None:
    """Three roundings of scales and sum, and one of the bias: within two units in the last place of the larger."""
    assert made.dtype == wanted.dtype
    scale = wanted.abs() + (0 if bias is None else 2 * bias.abs())
    assert bool(((made - wanted).abs() <= 2 * ULP * scale).all()), float(((made - wanted).abs() / scale).max() / ULP)


def int8_layer(x: Tensor, bias: Tensor | None = None, activation: str = "none") -> Graph:
    packed, scales = pack_int8_linear(noise(CHANNELS, FEATURES, seed=1))
    constants = [packed, scales, *([] if bias is None else [bias])]
    arguments = (Ref(0), Ref(1), Ref(2), None if bias is None else Ref(3), activation)
    return one_operator("taut.int8_linear.default", [x], *arguments, constants=constants)


def vector_layer(x: Tensor, inputs: str, bias: Tensor | None = None, activation: str = "none") -> Graph:
    found = encode(noise(CHANNELS, FEATURES, seed=1), "vsq4-v16-s4", chooser="ceil")
    scales, gammas = found.scale_codes(), found.gammas()
    assert scales is not None and gammas is not None
    packed = pack_vector_linear(found.codes(), scales, gammas)
    constants = [packed, gammas, *([] if bias is None else [bias])]
    arguments = (Ref(0), Ref(1), Ref(2), None if bias is None else Ref(3), activation, inputs)
    return one_operator("taut.vector_linear.default", [x], *arguments, constants=constants)


LAYERS = {
    "W8A8": int8_layer,
    "W4A8": lambda x, *rest: vector_layer(x, "int8", *rest),
    "W4A4": lambda x, *rest: vector_layer(x, "vsq4", *rest),
}


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_linear_layer(layer: str, optimised: bool, tmp_path: Path) -> None:
    x, bias = noise(3, 5, FEATURES) * noise(3, 5, 1).exp(), noise(CHANNELS, seed=2)
    made, wanted = both(LAYERS[layer](x, bias), tmp_path, x, optimised=optimised)
    assert_equal_but_for_rounding(made[0], wanted[0], bias)


@pytest.mark.parametrize("layer", LAYERS)
def test_halves_round_to_even_as_in_the_kernel(layer: str, tmp_path: Path) -> None:
    """Every value of a row lies half way between two integers of the grid, but for the largest."""
    x = (torch.arange(FEATURES) % 7 + 0.5).repeat(2, 1)
    x[:, 0] = 127 if layer != "W4A4" else 105
    made, wanted = both(LAYERS[layer](x), tmp_path, x)
    assert_equal_but_for_rounding(made[0], wanted[0])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_fused_activation(layer: str, activation: str, tmp_path: Path) -> None:
    x, bias = noise(4, FEATURES), noise(CHANNELS, seed=2)
    made, wanted = both(LAYERS[layer](x, bias, activation), tmp_path, x)
    torch.testing.assert_close(made, wanted, rtol=2e-6, atol=4e-6)  # the kernel's GELU is within 1e-7 of erf's


@pytest.mark.parametrize("layer", LAYERS)
def test_rows_of_zeros_and_tiny_rows_and_rows_that_are_not_finite(layer: str, tmp_path: Path) -> None:
    x = noise(6, FEATURES)
    x[0] = 0
    x[1] *= 2.0**-110
    x[2, 1] = torch.nan
    x[3, FEATURES - 1] = torch.inf
    x[4] *= 1e37
    bias = noise(CHANNELS, seed=2)
    (made,), (wanted,) = both(LAYERS[layer](x, bias), tmp_path, x)
    assert torch.equal(made[:2], bias.expand(2, -1)) and torch.equal(wanted[:2], made[:2])
    assert bool(made[2:4].isnan().all()) and bool(wanted[2:4].isnan().all())
    assert_equal_but_for_rounding(made[4:], wanted[4:], bias)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_vector_without_a_value_beside_a_large_one(layer: str, tmp_path: Path) -> None:
    x = noise(2, FEATURES)
    x[:, 16:32] = 0
    x[:, 32:48] *= 1e-6
    (made,), (wanted,) = both(LAYERS[layer](x), tmp_path, x)
    assert_equal_but_for_rounding(made, wanted)


@pytest.mark.parametrize("layer", ["W4A8", "W4A4"])
def test_four_bit_weights_stay_so_in_the_file(layer: str, tmp_path: Path) -> None:
    (path,) = export_onnx(LAYERS[layer](noise(2, FEATURES)), tmp_path / "model.onnx")
    sizes = {tensor.data_type: len(tensor.raw_data) for tensor in onnx.load(path).graph.initializer}
    vectors = -(-FEATURES // 16)
    assert sizes[onnx.TensorProto.INT4] == CHANNELS * vectors * 16 // 2
    assert sizes[onnx.TensorProto.UINT4] == -(-CHANNELS * vectors // 2)


GEOMETRIES = {
    "3x3": ((3, 3), (1, 1), (1, 1), (1, 1)),
    "1x1": ((1, 1), (1, 1), (0, 0), (1, 1)),
    "strided": ((3, 2), (2, 1), (0, 1), (1, 1)),
    "dilated": ((3, 3), (1, 2), (2, 1), (2, 1)),
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("bits", [8, 4])
def test_a_convolution(bits: int, geometry: str, tmp_path: Path) -> None:
    kernel, *window = GEOMETRIES[geometry]
    weight, bias = noise(19, 21, *kernel, seed=1), noise(19, seed=2)
    if bits == 8:
        packed, scales = pack_int8_convolution(weight)
    else:
        found = encode(convolution_rows(weight), "vsq4-v16-s4", chooser="ceil")
        codes, factors, scales = found.codes(), found.scale_codes(), found.gammas()
        assert factors is not None and scales is not None
        packed = pack_vector_convolution(codes, factors, scales)
    x = noise(2, 21, 8, 9) * torch.tensor([1.0, 30.0]).view(2, 1, 1, 1)
    op = f"taut.{'int8' if bits == 8 else 'vector'}_convolution.default"
    arguments = (Ref(0), Ref(1), Ref(2), Ref(3), kernel, *window, "relu")
    graph = one_operator(op, [x], *arguments, constants=[packed, scales, bias])
    (made,), (wanted,) = both(graph, tmp_path, x)
    assert_equal_but_for_rounding(made, wanted, bias.view(-1, 1, 1))
    assert "ConvInteger" in operations(tmp_path / "model.onnx")


def test_a_packed_weight_of_another_layer_is_refused(tmp_path: Path) -> None:
    packed, scales = pack_int8_linear(noise(16, 8))
    x = noise(2, 8)
    graph = one_operator(
        "taut.int8_linear.default", [x], Ref(0), Ref(1), Ref(2), None, "none", constants=[packed, scales]
    )
    damaged = {key: value[:, :-1] if value.dim() == 4 else value for key, value in graph.constants.items()}
    with pytest.raises(ExportError, match="does not fit"):
        export_onnx(Graph(graph.nodes, graph.inputs, graph.outputs, damaged), tmp_path / "model.onnx")


def test_a_layer_that_runs_twice_is_stored_once(tmp_path: Path) -> None:
    packed, scales = pack_int8_linear(noise(64, 64))
    builder, kind = Builder(), TensorType((2, 64), torch.float32)
    x = builder.input("x", kind)
    weight = (builder.constant(packed, "packed"), builder.constant(scales, "scales"))
    for _ in range(2):
        x = builder.add("taut.int8_linear.default", x, *weight, None, "none", outputs=kind)
    (path,) = export_onnx(builder.finish(x), tmp_path / "model.onnx")
    shapes = [tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer]
    assert shapes.count((64, 64)) == 1


def test_arguments_that_make_no_sense_are_refused_with_their_place(tmp_path: Path) -> None:
    x, weight = noise(1, 4, 5, 5), noise(4, 4, 3, 3)
    packed, scales = pack_int8_convolution(weight)
    builder = Builder()
    image = builder.input("x", TensorType((1, 4, 5, 5), torch.float32))
    constants = (builder.constant(packed, "packed"), builder.constant(scales, "scales"))
    arguments = (image, *constants, None, (3,), (1, 1), (1, 1), (1, 1), "none")  # a kernel of one dimension
    op, kind = "taut.int8_convolution.default", TensorType(tuple(x.shape), torch.float32)
    graph = builder.finish(builder.add(op, *arguments, outputs=kind, module_path="stem"))
    with pytest.raises(ExportError, match=r"taut\.int8_convolution\.default at stem: its arguments"):
        export_onnx(graph, tmp_path / "model.onnx")
