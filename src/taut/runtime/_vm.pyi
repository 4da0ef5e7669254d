from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

class Executable: ...

class Session:
    def __init__(
        self,
        executable: Executable,
        memory_limit: int,
        recursion_limit: int,
        step_limit: int,
        poison: bool,
        workers: int,
    ) -> None: ...
    def __call__(self, *inputs: Any) -> list[Any]: ...
    def profile(self, *inputs: Any) -> tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int, int, int]]]: ...
    def time(self, repeats: int, *inputs: Any) -> float: ...

def bind_types(tensor_type: type, object_type: type) -> None: ...
def library_address(path: str, symbol: str) -> int: ...
def refused_leases() -> int: ...
def live_bytes() -> int: ...
def load(
    functions: Sequence[tuple[Any, ...]],
    parameters: Sequence[tuple[Any, ...]],
    constants: Sequence[Tensor],
    kernels: Sequence[tuple[Any, ...]],
    fallbacks: Sequence[tuple[int, int]],
    messages: Sequence[str],
    fallback: Callable[[int, list[Any]], Sequence[Any]],
) -> Executable: ...
