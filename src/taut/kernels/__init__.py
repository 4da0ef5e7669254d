"""Native kernels: instruction-set dispatch, quantised linear layers and convolutions, and the host's peak rates.

Importing this room registers `torch.ops.taut.*`.
"""

from taut.kernels._checks import MAX_IN_FEATURES
from taut.kernels._convolution import (
    int8_convolution,
    pack_int8_convolution,
    pack_vector_convolution,
    vector_convolution,
)
from taut.kernels._int8_linear import int8_linear, pack_int8_linear
from taut.kernels._isa import active_isa, available_isas, force
from taut.kernels._nms import nms
from taut.kernels._peaks import measure_peaks
from taut.kernels._recurrent import (
    PackedRecurrent,
    pack_recurrent,
    pack_small_linear,
    recurrent,
    small_linear,
)
from taut.kernels._triton import pack_triton_vector_linear, triton_vector_linear
from taut.kernels._vector_linear import pack_vector_linear, vector_linear

__all__ = [
    "MAX_IN_FEATURES",
    "PackedRecurrent",
    "active_isa",
    "available_isas",
    "force",
    "int8_convolution",
    "int8_linear",
    "measure_peaks",
    "nms",
    "pack_int8_convolution",
    "pack_int8_linear",
    "pack_recurrent",
    "pack_small_linear",
    "pack_triton_vector_linear",
    "pack_vector_convolution",
    "pack_vector_linear",
    "recurrent",
    "small_linear",
    "triton_vector_linear",
    "vector_convolution",
    "vector_linear",
]
