"""Native kernels: instruction-set dispatch, quantised layers, selection and codes of gradients, the host's peak rates.

Importing this room registers `torch.ops.taut.*`.
"""

from taut.kernels._checks import MAX_IN_FEATURES
from taut.kernels._convolution import (
    int8_convolution,
    pack_int8_convolution,
    pack_vector_convolution,
    vector_convolution,
)
from taut.kernels._entry_messages import (
    MESSAGE_HEADER_BYTES,
    entry_message_bound,
    pack_entries,
    read_header,
    unpack_entries,
    write_header,
)
from taut.kernels._gradient_codes import (
    QUANTISE_BLOCK,
    decode_indices,
    decode_values,
    dequantise_add,
    encode_indices,
    encode_values,
    pack_signs,
    quantise_stochastic,
    scatter_add,
    unpack_majority,
)
from taut.kernels._int8_linear import int8_linear, pack_int8_linear
from taut.kernels._isa import active_isa, available_isas, force
from taut.kernels._nms import nms
from taut.kernels._peaks import HandOver, measure_hand_over, measure_peaks
from taut.kernels._recurrent import (
    PackedRecurrent,
    pack_recurrent,
    pack_small_linear,
    recurrent,
    small_linear,
)
from taut.kernels._selection import (
    MAGNITUDE_BINS,
    Moments,
    accumulate_and_select_top_k,
    accumulate_moments,
    exceedance_moments,
    select_above,
    top_k,
)
from taut.kernels._signal import SIGNAL_BYTES, raise_signal, wait_for_signal
from taut.kernels._triton import pack_triton_vector_linear, triton_vector_linear
from taut.kernels._triton_selection import triton_select_above, triton_top_k
from taut.kernels._vector_linear import pack_vector_linear, vector_linear

__all__ = [
    "MAGNITUDE_BINS",
    "MAX_IN_FEATURES",
    "MESSAGE_HEADER_BYTES",
    "QUANTISE_BLOCK",
    "SIGNAL_BYTES",
    "HandOver",
    "Moments",
    "PackedRecurrent",
    "accumulate_and_select_top_k",
    "accumulate_moments",
    "active_isa",
    "available_isas",
    "decode_indices",
    "decode_values",
    "dequantise_add",
    "encode_indices",
    "encode_values",
    "entry_message_bound",
    "exceedance_moments",
    "force",
    "int8_convolution",
    "int8_linear",
    "measure_hand_over",
    "measure_peaks",
    "nms",
    "pack_entries",
    "pack_int8_convolution",
    "pack_int8_linear",
    "pack_recurrent",
    "pack_signs",
    "pack_small_linear",
    "pack_triton_vector_linear",
    "pack_vector_convolution",
    "pack_vector_linear",
    "quantise_stochastic",
    "raise_signal",
    "read_header",
    "recurrent",
    "scatter_add",
    "select_above",
    "small_linear",
    "top_k",
    "triton_select_above",
    "triton_top_k",
    "triton_vector_linear",
    "unpack_entries",
    "unpack_majority",
    "vector_convolution",
    "vector_linear",
    "wait_for_signal",
    "write_header",
]
