"""The operators `taut::decode`, `taut::encoded_embedding` and `taut::fake_quantise`.

`decode(Tensor[] buffers, str format, int[] shape) -> Tensor` gives float32 of that shape.
`encoded_embedding(Tensor indices, Tensor[] buffers, str format, int[] shape) -> Tensor` decodes only rows looked up.
`fake_quantise(Tensor x, str format, int dim) -> Tensor` is `x` encoded and decoded with vectors along `dim`, each slice
along it a row; a row with NaN or infinity becomes NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taut.errors import ArgumentError
from taut.numerics._choice import Chooser
from taut.numerics._choosers import get_chooser
from taut.numerics._encode import CHUNK, encode_rows
from taut.numerics._encoded import Encoded
from taut.numerics._format import Format, Geometry
from taut.numerics._layout import decode_parts
from taut.numerics._registry import get_format

_library = torch.library.Library("taut", "FRAGMENT")
_library.define("decode(Tensor[] buffers, str format, int[] shape) -> Tensor")
_library.define("encoded_embedding(Tensor indices, Tensor[] buffers, str format, int[] shape) -> Tensor")
_library.define("fake_quantise(Tensor x, str format, int dim) -> Tensor")


def _encoded(buffers: list[Tensor], number_format: str, shape: list[int]) -> Encoded:
    found = get_format(number_format)
    names = list(found.buffer_shapes(tuple(shape)))
    if len(names) != len(buffers):
        raise ArgumentError("buffers", len(buffers), expected=f"{len(names)} for {number_format}: {', '.join(names)}")
    return Encoded(found, tuple(shape), dict(zip(names, buffers, strict=True)))


def _decode(buffers: list[Tensor], number_format: str, shape: list[int]) -> Tensor:
    return _encoded(buffers, number_format, shape).decode()


def _describe_decode(buffers: list[Tensor], number_format: str, shape: list[int]) -> Tensor:
    _encoded(buffers, number_format, shape)
    return buffers[0].new_empty(shape, dtype=torch.float32)


def _embedding(indices: Tensor, buffers: list[Tensor], number_format: str, shape: list[int]) -> Tensor:
    table = _table(indices, buffers, number_format, shape)
    wanted = indices.flatten()
    if wanted.numel() and (int(wanted.min()) < 0 or int(wanted.max()) >= shape[0]):
        raise ArgumentError(
            "indices", f"{int(wanted.min())} to {int(wanted.max())}", expected=f"0 to {shape[0] - 1}, the table's rows"
        )
    rows = {
        name: tensor if tensor.shape[0] != shape[0] else tensor.index_select(0, wanted)
        for name, tensor in table.buffers.items()
    }
    count = wanted.numel()
    found = {name: rows[name][: size[0]] for name, size in table.format.buffer_shapes((count, shape[1])).items()}
    return Encoded(table.format, (count, shape[1]), found).decode().view(*indices.shape, shape[1])


def _describe_embedding(indices: Tensor, buffers: list[Tensor], number_format: str, shape: list[int]) -> Tensor:
    _table(indices, buffers, number_format, shape)
    return buffers[0].new_empty((*indices.shape, shape[1]), dtype=torch.float32)


def _table(indices: Tensor, buffers: list[Tensor], number_format: str, shape: list[int]) -> Encoded:
    if len(shape) != 2:
        raise ArgumentError("shape", tuple(shape), expected="(entries, features) of an embedding table")
    if indices.dtype not in (torch.int32, torch.int64):
        raise ArgumentError("indices", indices.dtype, expected="int64 or int32")
    return _encoded(buffers, number_format, shape)


def _fake_quantise(x: Tensor, number_format: str, dim: int) -> Tensor:
    found = _check_fake(x, number_format, dim)
    choose = get_chooser(found.dynamic_chooser, found)
    moved = x.detach().to(torch.float32).movedim(dim, -1)
    rows = moved.reshape(math.prod(moved.shape[:-1]), x.shape[dim])
    finite = torch.isfinite(rows).all(dim=1, keepdim=True)
    rows = torch.where(finite, rows, 0.0)
    chunks = [rows] if found.is_shared or not rows.numel() else rows.split(max(1, CHUNK // rows.shape[1]))
    values = torch.cat([_round_trip(chunk, found, choose) for chunk in chunks]).masked_fill_(~finite, torch.nan)
    return values.view(moved.shape).movedim(-1, dim).to(x.dtype).contiguous()


def _round_trip(rows: Tensor, number_format: Format, choose: Chooser) -> Tensor:
    sizes = Geometry.of((rows.shape[0], rows.shape[1]), number_format)
    return decode_parts(encode_rows(rows, number_format, sizes, choose, None), number_format, sizes)


def _describe_fake(x: Tensor, number_format: str, dim: int) -> Tensor:
    _check_fake(x, number_format, dim)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _check_fake(x: Tensor, number_format: str, dim: int) -> Format:
    found = get_format(number_format)
    if not x.is_floating_point():
        raise ArgumentError("x", x.dtype, expected="floating point")
    if not -x.dim() <= dim < x.dim():
        raise ArgumentError("dim", dim, expected=f"a dimension of x, which has {x.dim()}")
    return found


for _name, _run, _describe in (
    ("decode", _decode, _describe_decode),
    ("encoded_embedding", _embedding, _describe_embedding),
    ("fake_quantise", _fake_quantise, _describe_fake),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"taut::{_name}", _describe, lib=_library)
