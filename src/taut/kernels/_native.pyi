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
