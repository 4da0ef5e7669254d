"""Encoded weights and tables decode to the very same numbers in onnxruntime, or are refused by name."""

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
from taut.numerics import FORMATS, Encoded, encode, get_format

EXACT = (
    "int8-channel", "int4-channel", "int3-channel", "int8-tensor", "int4-tensor", "uint8-channel", "uint4-channel",
    "uint8-tensor", "vsq4-v16-s4", "vsq4-v16-s6", "vsq3-v16-s4", "vsq4-v32-s4", "vsq8-v16-s10", "vsq6-v4-s4",
    "vsq4-v16-s4-tensor", "vsq4-v16-f16", "vsq4-v16-f32", "q4_0", "fp8-e4m3-channel", "fp8-e5m2-channel",
)  # fmt: skip
TABLES = (
    "int8-channel", "int4-channel", "int3-channel", "vsq4-v16-s4", "vsq4-v32-s6", "vsq3-v16-s4", "vsq4-v64-s10",
    "vsq8-v16-s10", "vsq6-v4-s4", "vsq4-v16-f16", "vsq4-v16-f32", "q4_0",
)  # fmt: skip
REFUSED_TABLES = ("fp8-e4m3-channel", "uint4-channel", "vsq4-v16-s4-tensor", "mxfp4")
PACKED = ("vsq4-v16-s4", "vsq4-v16-s6", "vsq3-v16-s4", "vsq2-v64-s4", "vsq4-v32-s4", "vsq4-v16-f16", "vsq4-v16-f32",
          "vsq4-v16-s4-tensor", "q4_0")  # fmt: skip
REFUSED = ("mxfp4", "mxfp6-e2m3", "mxfp6-e3m2", "mxfp8-e4m3", "mxfp8-e5m2", "mxint8", "nvfp4", "q4_k")
EXPORTABLE = tuple(dict.fromkeys((*(name for name in FORMATS if name not in REFUSED), *EXACT, *PACKED)))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def encoded(form: str, *shape: int) -> Encoded:
    """Noise in that format, by a chooser that takes no time: which scales are chosen does not matter here."""
    integer = get_format(form).scales is not None and "-s" in form
    chooser = None if form == "q4_k" else "requantise" if integer else "max"
    return encode(noise(*shape, seed=1), form, chooser=chooser)


def decoding(found: Encoded, use: str = "none", lead: tuple[int, ...] = (5,)) -> Graph:
    """A graph that decodes a constant, and adds it to its input or multiplies its input by it."""
    builder = Builder()
    shape = found.shape if use == "none" else (*lead, found.shape[1])
    x = builder.input("x", TensorType(shape, torch.float32))
    buffers = tuple(builder.constant(value, f"weight.{name}") for name, value in found.buffers.items())
    kind = TensorType(found.shape, torch.float32)
    weight = builder.add(
        "taut.decode.default", buffers, found.format.name, found.shape, outputs=kind, module_path="block.layer"
    )
    if use == "none":
        return builder.finish(builder.add("aten.add.Tensor", x, weight, outputs=kind))
    result = TensorType((*lead, found.shape[0]), torch.float32)
    return builder.finish(builder.add("aten.linear.default", x, weight, outputs=result, module_path="block.layer"))


@pytest.mark.parametrize("form", EXACT)
@pytest.mark.parametrize("shape", [(6, 70), (6, 64), (4, 9, 24)])
def test_a_weight_decodes_bit_for_bit(form: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    found = encoded(form, *shape)
    (made,), (wanted,) = both(decoding(found), tmp_path, torch.zeros(shape))
    assert torch.equal(made, wanted) and torch.equal(wanted, found.decode())


@pytest.mark.parametrize("form", PACKED)
def test_a_linear_layer_on_blocks_of_four_bits_is_one_operation(form: str, tmp_path: Path) -> None:
    """Each weight is off by one rounding of its scale, 2**-24; the sum of 70 products by float32 rounding."""
    found, x = encoded(form, 24, 70), noise(5, 70)
    (made,), (wanted,) = both(decoding(found, "linear"), tmp_path, x)
    assert "MatMulNBits" in operations(tmp_path / "model.onnx")
    magnitude = x.abs() @ found.decode().abs().T
    assert bool(((made - wanted).abs() <= 2.0**-20 * magnitude).all())


@pytest.mark.parametrize("form", EXPORTABLE)
def test_a_product_with_three_dimensions_keeps_float32_activations(form: str, tmp_path: Path) -> None:
    """The runtime's own rewrites may not round activations to int8, as it does unasked for some patterns."""
    found, x = encoded(form, 48, 64), noise(3, 5, 64)
    (made,), (wanted,) = both(decoding(found, "linear", lead=(3, 5)), tmp_path, x)
    magnitude = x.abs() @ found.decode().abs().T
    assert bool(((made - wanted).abs() <= 2.0**-20 * magnitude).all())


def test_the_file_holds_four_bits_a_weight(tmp_path: Path) -> None:
    found = encoded("vsq4-v16-s4", 64, 256)
    (path,) = export_onnx(decoding(found), tmp_path / "model.onnx")
    stored = sum(len(tensor.raw_data) for tensor in onnx.load(path).graph.initializer)
    assert found.nbytes <= stored < found.nbytes + 64  # beside the weight, a few numbers


@pytest.mark.parametrize("form", ["vsq4-v16-s4", "int8-channel"])
def test_a_weight_that_two_layers_share_is_stored_once(form: str, tmp_path: Path) -> None:
    found = encoded(form, 64, 64)
    builder = Builder()
    kind = TensorType((64, 64), torch.float32)
    x = builder.input("x", kind)
    buffers = tuple(builder.constant(value, f"weight.{name}") for name, value in found.buffers.items())
    weight = builder.add("taut.decode.default", buffers, form, (64, 64), outputs=kind)
    for _ in range(2):
        x = builder.add("aten.linear.default", x, weight, outputs=kind)
    (path,) = export_onnx(builder.finish(x), tmp_path / "model.onnx")
    stored = sum(len(tensor.raw_data) for tensor in onnx.load(path).graph.initializer)
    assert stored < 1.5 * found.nbytes


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("features", [64, 48])
def test_rows_of_a_table_decode_bit_for_bit(form: str, features: int, tmp_path: Path) -> None:
    found = encoded(form, 11, features)
    indices = torch.tensor([[3, 0, 10], [7, 7, 1]])
    buffers = list(found.buffers.values())
    refs = tuple(Ref(1 + index) for index in range(len(buffers)))
    op = "taut.encoded_embedding.default"
    graph = one_operator(op, [indices], Ref(0), refs, form, (11, features), constants=buffers)
    (made,), (wanted,) = both(graph, tmp_path, indices)
    assert torch.equal(made, wanted) and torch.equal(wanted, found.decode()[indices])


@pytest.mark.parametrize(
    "form", ["int8-channel", "int4-channel", "vsq4-v16-s4", "vsq6-v8-s6", "vsq3-v12-s5", "vsq4-v16-s4-tensor"]
)
def test_activations_are_quantised_bit_for_bit(form: str, tmp_path: Path) -> None:
    x = noise(3, 4, 70) * noise(3, 4, 1).exp()
    x[0, 0] = 0
    x[0, 1, 3] = torch.nan
    x[0, 2, 69] = -torch.inf
    (made,), (wanted,) = both(one_operator("taut.fake_quantise.default", [x], Ref(0), form, -1), tmp_path, x)
    torch.testing.assert_close(made, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("form", REFUSED)
def test_a_format_without_counterpart_is_refused_by_name_and_place(form: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=rf"block\.layer.*{form}.*no counterpart in ONNX") as caught:
        export_onnx(decoding(encoded(form, 8, 256), "linear"), tmp_path / "model.onnx")
    assert "vsq4-v16-s4" in str(caught.value.fix)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("form", REFUSED_TABLES)
def test_a_table_whose_rows_cannot_be_gathered_is_refused(form: str, tmp_path: Path) -> None:
    buffers = list(encoded(form, 11, 64).buffers.values())
    refs = tuple(Ref(1 + index) for index in range(len(buffers)))
    indices = torch.tensor([0, 10])
    graph = one_operator("taut.encoded_embedding.default", [indices], Ref(0), refs, form, (11, 64), constants=buffers)
    with pytest.raises(ExportError, match=f"{form}.*no counterpart"):
        export_onnx(graph, tmp_path / "model.onnx")


def test_activations_without_counterpart_are_refused(tmp_path: Path) -> None:
    graph = one_operator("taut.fake_quantise.default", [noise(2, 64)], Ref(0), "mxfp4", -1)
    with pytest.raises(ExportError, match=r"activations in mxfp4 .* no counterpart"):
        export_onnx(graph, tmp_path / "model.onnx")


def test_a_damaged_weight_is_refused(tmp_path: Path) -> None:
    graph = decoding(encoded("vsq4-v16-s4", 8, 64))
    cut = {key: value[:, :-1] for key, value in graph.constants.items()}
    with pytest.raises(ExportError, match="malformed"):
        export_onnx(Graph(graph.nodes, graph.inputs, graph.outputs, cut), tmp_path / "model.onnx")
