"""Sets of operators, and how they bear bfloat16."""

from __future__ import annotations


def aten_names(names: str) -> frozenset[str]:
    """Operator names from words; a word without an overload means the default one."""
    return frozenset(f"aten.{name}" if "." in name else f"aten.{name}.default" for name in names.split())


NORMALISATIONS = aten_names("layer_norm batch_norm _native_batch_norm_legit_no_training group_norm native_layer_norm")
"""Accept bfloat16 activations with float32 scale, shift and statistics."""

QUANTISED = frozenset(
    f"taut.{name}.default" for name in ("int8_linear", "vector_linear", "int8_convolution", "vector_convolution")
)
"""Accept bfloat16 activations with float32 scales and bias."""

QUANTISING = ("quantise", "int8_linear", "w4a8_linear", "w4a4_linear", "int8_convolution", "w4a8_convolution")
"""Passes that leave less to those that work on float layers."""

BFLOAT16_LEADERS = aten_names(
    "linear addmm mm bmm baddbmm matmul scaled_dot_product_attention convolution conv1d conv2d conv3d conv1d.padding"
    " conv2d.padding conv3d.padding conv_transpose1d conv_transpose2d.input conv_transpose3d.input"
) | {
    "mkldnn._convolution_pointwise.default",
    "mkldnn._convolution_pointwise.binary",
    "mkldnn._linear_pointwise.default",
}
"""Worth a cast: the arithmetic is quadratic in the data, and the hardware has instructions for it."""

BFLOAT16_FOLLOWERS = (
    NORMALISATIONS
    | QUANTISED
    | aten_names(
        "relu relu6 hardtanh hardswish hardsigmoid silu mish gelu sigmoid tanh leaky_relu elu softplus neg abs clamp"
        " add.Tensor sub.Tensor mul.Tensor div.Tensor add.Scalar sub.Scalar mul.Scalar div.Scalar maximum minimum"
        " where.self where.ScalarOther where.ScalarSelf masked_fill.Scalar masked_fill.Tensor softmax.int _softmax"
        " log_softmax.int _log_softmax cat stack split.Tensor split_with_sizes chunk unbind.int reshape view "
        " flatten.using_ints unflatten.int permute transpose.int unsqueeze squeeze squeeze.dim squeeze.dims"
        " expand expand_as repeat slice.Tensor select.int narrow index_select gather flip roll clone contiguous pad"
        " constant_pad_nd max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"
        " adaptive_avg_pool1d adaptive_avg_pool2d"
        " adaptive_avg_pool3d adaptive_max_pool2d mean mean.dim sum sum.dim_IntList amax amin pixel_shuffle"
        " upsample_nearest2d.vec upsample_bilinear2d.vec movedim.int movedim.intlist"
    )
)
"""Cheap, and safe in bfloat16: they keep the magnitude, or accumulate in float32 inside ATen."""
