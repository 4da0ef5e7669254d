from collections.abc import Sequence

from torch import Tensor

max_depth: int

def available_isas() -> tuple[str, ...]: ...
def active_isa() -> str: ...
def set_active_isa(name: str) -> None: ...
def bind_tensor_type(tensor_type: type, exchange: bool) -> bool: ...
def int8_linear(
    x: Tensor,
    packed: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    activation: str,
    threads: int,
) -> Tensor: ...
def vector_linear(
    x: Tensor,
    packed: Tensor,
    gammas: Tensor,
    bias: Tensor | None,
    activation: str,
    inputs: str,
    threads: int,
) -> Tensor: ...
def measure_peaks(threads: int) -> dict[str, float]: ...
def measure_hand_over() -> tuple[float, float]: ...
def int8_convolution(
    x: Tensor,
    packed: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
    threads: int,
) -> Tensor: ...
def vector_convolution(
    x: Tensor,
    packed: Tensor,
    gammas: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
    threads: int,
) -> Tensor: ...
def recurrent(
    cell: str,
    x: Tensor,
    input_weights: Tensor,
    hidden_weights: Tensor,
    bias: Tensor,
    hidden_bias: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
    y: Tensor,
    column: int,
    h: Tensor,
    c: Tensor | None,
    reverse: bool,
    threads: int,
) -> None: ...
def small_linear(x: Tensor, packed: Tensor, bias: Tensor, activation: str, y: Tensor) -> None: ...

magnitude_bins: int
quantise_block: int

def top_k(gradient: Tensor | None, x: Tensor, indices: Tensor, values: Tensor, clear: bool, threads: int) -> None: ...
def accumulate_moments(
    gradient: Tensor, residual: Tensor, log: bool, histogram: Tensor | None, threads: int
) -> tuple[int, float, float, float, float, int]: ...
def exceedance_moments(
    x: Tensor, threshold: float, log: bool, threads: int
) -> tuple[int, float, float, float, float, int]: ...
def select_above(
    residual: Tensor, threshold: float, indices: Tensor, values: Tensor, clear: bool, threads: int
) -> int: ...
def scatter_add(dense: Tensor, indices: Tensor, values: Tensor, scale: float) -> None: ...
def pack_signs(x: Tensor, packed: Tensor, threads: int) -> None: ...
def unpack_majority(packed: Tensor, scale: float, out: Tensor, threads: int) -> None: ...
def quantise_stochastic(x: Tensor, bits: int, seed: int, codes: Tensor, steps: Tensor, threads: int) -> None: ...
def dequantise_add(dense: Tensor, codes: Tensor, steps: Tensor, bits: int, scale: float, threads: int) -> None: ...
def index_code_bound(count: int) -> int: ...
def encode_indices(indices: Tensor, length: int, code: Tensor) -> int: ...
def index_count(encoded: Tensor) -> int: ...
def decode_indices(encoded: Tensor, length: int, indices: Tensor) -> None: ...
def value_code_bound(count: int, width: int) -> int: ...
def encode_values(values: Tensor, width: int, code: Tensor) -> int: ...
def decode_values(encoded: Tensor, width: int, values: Tensor) -> None: ...

signal_bytes: int

def raise_signal(signal: Tensor, number: int) -> None: ...
def wait_for_signal(signals: list[Tensor], number: int, seconds: float, spin_seconds: float) -> int: ...
