"""Loads the native module, after torch, and tells it what a tensor is."""

# torch must come first: it brings the libgomp whose thread pool the kernels share.
import torch

try:
    from taut.kernels import _native  # pyright: ignore[reportMissingModuleSource]
except ImportError as error:
    from taut.errors import KernelError

    raise KernelError(
        f"the native module of taut cannot be loaded: {error}",
        expected="taut installed by pip, which compiles it",
        fix="pip install -c constraints.txt -e . --no-build-isolation",
    ) from error

_native.bind_tensor_type(torch.Tensor, True)

__all__ = ["_native"]
