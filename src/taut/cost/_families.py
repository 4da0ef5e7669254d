"""Which operators behave alike, as far as time is concerned."""

from __future__ import annotations

import torch

from taut.graph import Graph, Node, Ref, TensorType

PRODUCTS = (
    *("linear", "strided_linear", "packed_linear", "attention", "recurrent"),
    *("convolution", "convolution_channels_last", "packed_convolution", "depthwise"),
)
"""Families whose work is counted in operations, two for a multiply-add; the others' in elements."""

READERS = ("pooling", "reduction")
"""Families that read more than they write: their elements are those of the first input, the others' of the output."""

_MEMBERS = {
    "linear": "linear addmm mm bmm baddbmm matmul mv dot addmv addbmm int8_linear vector_linear _int_mm",
    "recurrent": "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
    "packed_linear": "_linear_pointwise",
    "transcendental": (
        "gelu tanh sigmoid exp exp2 expm1 log log2 log10 log1p erf erfc sin cos tan silu mish softplus elu selu celu"
        " softmax _softmax log_softmax _log_softmax logsumexp pow log_sigmoid"
    ),
    "normalisation": "layer_norm group_norm native_group_norm instance_norm rms_norm",
    "batch_normalisation": "batch_norm",
    "pooling": (
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d"
        " avg_pool3d adaptive_max_pool2d"
    ),
    "reduction": (
        "mean sum amax amin max min argmax argmin prod var std adaptive_avg_pool1d adaptive_avg_pool2d"
        " _adaptive_avg_pool2d"
    ),
}
_FAMILIES = {name: member for member, names in _MEMBERS.items() for name in names.split()}
_INTEGER_PRODUCTS = ("int8_linear", "vector_linear", "int8_convolution", "vector_convolution", "_int_mm")
_STRUCTURAL = ("input", "constant", "check", "taut.decode.default")


def operator_name(op: str) -> str:
    """The bare name: "linear" for "aten.linear.default"."""
    parts = op.split(".")
    return parts[1] if len(parts) > 1 else op


def runs_nothing(node: Node) -> bool:
    """Whether a node costs no time of its own: inputs, constants (encoded ones too), checks and arithmetic on sizes."""
    return node.op in _STRUCTURAL or not any(isinstance(value, TensorType) for value in node.outputs)


def family(graph: Graph, node: Node) -> str:
    """The family of an operator; "pointwise" where it has no other."""
    name = operator_name(node.op)
    if node.op.startswith("taut.") and name.endswith("_convolution"):
        return "convolution_channels_last"
    if "conv" in name:
        if _is_depthwise(graph, node):
            return "depthwise"
        if node.op.startswith("mkldnn."):
            return "packed_convolution"
        last = any(isinstance(kind, TensorType) and kind.layout == "channels_last" for kind in node.outputs)
        return "convolution_channels_last" if last else "convolution"
    if "attention" in name:
        return "attention"
    if node.op == "aten.linear.default" and _is_transposed(graph, node.inputs[0]):
        return "strided_linear"
    return _FAMILIES.get(name, "pointwise")


def _is_transposed(graph: Graph, ref: Ref) -> bool:
    """Whether a value is a transposed view: ATen multiplies such row by row, in bfloat16 thirty times slower."""
    return operator_name(graph.nodes[ref.node].op) in ("transpose", "permute", "t", "movedim")


def _is_depthwise(graph: Graph, node: Node) -> bool:
    """One of several input channels a group: such a convolution streams its input and has little to multiply."""
    kinds = [graph.value_type(ref) for ref in node.inputs]
    weights = [kind for ref, kind in zip(node.inputs, kinds, strict=True) if graph.constant(ref) is not None]
    source, *windows = (kind.shape for kind in (kinds[0], *weights) if isinstance(kind, TensorType))
    return source[1] != 1 and any(len(shape) > 2 and shape[1] == 1 for shape in windows)


def number_format(graph: Graph, node: Node) -> str:
    """The format that a node computes in: "int8", "bf16" or "fp32" (which stands for every other type as well)."""
    if operator_name(node.op) in _INTEGER_PRODUCTS:
        return "int8"
    types = [graph.value_type(ref) for ref in node.inputs] + list(node.outputs)
    floats = [value.dtype for value in types if isinstance(value, TensorType) and value.dtype.is_floating_point]
    return "bf16" if floats and floats[0] == torch.bfloat16 else "fp32"
