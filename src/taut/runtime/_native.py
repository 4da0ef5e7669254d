"""Loads the native virtual machine and tells it what tensors and objects are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

# torch must come first: it brings the libgomp whose thread pool kernels may share.
import torch

try:
    from taut.runtime import _vm  # pyright: ignore[reportMissingModuleSource]
except ImportError as error:
    from taut.errors import KernelError

    raise KernelError(
        f"the virtual machine of taut cannot be loaded: {error}",
        expected="taut installed by pip, which compiles it",
        fix="pip install -c constraints.txt -e . --no-build-isolation",
    ) from error


class Object(NamedTuple):
    """A value with fields that goes into a program or comes out of it, e.g. a node of a tree.

    Attributes:
        tag: says which of several kinds of object it is.
        fields: tensors, integers and objects; as an input also tuples and lists, which are objects of tag 0.
    """

    tag: int
    fields: Sequence[Any]


_vm.bind_types(torch.Tensor, Object)

__all__ = ["Object", "_vm"]
