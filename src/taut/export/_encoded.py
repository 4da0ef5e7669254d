"""Weights and tables in the number formats of `taut.numerics`, as ONNX holds them.

What is written decodes to the same float32 numbers: codes times scales is exact, and the coarse scale rounds once, as
in `taut.numerics`. The one exception is `MatMulNBits`, which knows one level of scales: there the product of scale and
coarse scale is rounded to float32 first, a relative error of at most 2**-24 on each weight.
"""

from __future__ import annotations

from typing import NoReturn

import torch

from taut.errors import TautError
from taut.export._registry import converts, unsupported
from taut.export._values import EncodedWeight, Value
from taut.export._writer import Writer
from taut.numerics import Encoded, FloatElements, Format, IntegerElements, get_format

_BLOCKS = (16, 32, 64, 128, 256)  # that onnxruntime's operators know
_EXACT_IN_HALF = 2**11
_EIGHT_BIT_FLOATS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
_CONTRIBUTED = "com.microsoft"
_FLOAT = torch.float32


def write_decoded(w: Writer, weight: EncodedWeight) -> str:
    """The float32 tensor behind an encoded one, computed by the model.

    Raises:
        ExportError: the format has no counterpart.
    """
    (name,) = w.once(("decoded", *map(id, weight.buffers)), lambda: (_decoded(w, _open(w, weight)),))
    return name


def _decoded(w: Writer, found: Encoded) -> str:
    form, shape = found.format, found.shape
    codes, gammas, zero_points = found.codes(), found.gammas(), found.zero_points()
    scales = _scales(found)
    rank = len(shape)
    if scales is None:
        # The scale is 1 here: onnxruntime turns DequantizeLinear with real scales, a transposition and a product into
        # MatMulNBits on activations that it rounds to int8.
        stored, zero, axis, one = _store(w, form, codes), None, None, w.number(1.0, _FLOAT)
        if zero_points is not None:
            shared = zero_points.numel() == 1
            zero = _store(w, form, zero_points.reshape(()) if shared else zero_points)
            axis, one = (None, one) if shared else (0, w.initialiser(torch.ones(zero_points.numel())))
        exact = w.emit("DequantizeLinear", stored, one, zero, axis=axis)
    else:
        exact = w.emit("DequantizeLinear", _store(w, form, codes), scales(w), axis=rank - 1, block_size=form.vector)
    if gammas is None:
        return exact
    return w.emit("Mul", exact, w.initialiser(gammas.reshape(-1, *[1] * (rank - 1))))


def write_packed_product(w: Writer, x: Value, weight: EncodedWeight) -> str | None:
    """`x @ weight.T` by onnxruntime's `MatMulNBits`, where the format is one of 4 bits in its blocks; else None."""
    found = _open(w, weight)
    form = found.format
    if not _is_narrow(form) or form.vector not in _BLOCKS or len(found.shape) != 2 or form.offset != "none":
        return None
    packed, scales = w.once(("packed", *map(id, weight.buffers)), lambda: _packed(w, found))
    return w.emit(
        "MatMulNBits",
        w.cast(x, _FLOAT),
        packed,
        scales,
        domain=_CONTRIBUTED,
        K=found.shape[1],
        N=found.shape[0],
        bits=4,
        block_size=form.vector,
        accuracy_level=1,  # float32 arithmetic: activations are not rounded
    )


def _packed(w: Writer, found: Encoded) -> tuple[str, str]:
    """The codes, two a byte, and the scales, of blocks as `MatMulNBits` reads them."""
    channels, features = found.shape
    scales, gammas, vector = found.scale_codes(), found.gammas(), found.format.vector
    assert scales is not None and vector is not None
    products = scales.to(_FLOAT) if gammas is None else scales.to(_FLOAT) * gammas.reshape(-1, 1)
    vectors = -(-features // vector)
    padded = torch.nn.functional.pad(found.codes(), (0, vectors * vector - features))
    unsigned = (padded + 8).view(torch.uint8)  # the operator's zero point is 8 where none is given
    packed = (unsigned[:, ::2] | unsigned[:, 1::2] << 4).view(channels, vectors, vector // 2)
    return w.initialiser(packed.contiguous()), w.initialiser(products[:, :vectors].contiguous())


@converts("taut.encoded_embedding.default")
def _encoded_embedding(w: Writer, indices: Value, buffers: list[Value], name: str, shape: list[int]) -> str:
    tensors = tuple(buffer.tensor for buffer in buffers if buffer.tensor is not None)
    if len(tensors) < len(buffers):
        unsupported(w.node, "its table is computed", fix="use a table that is a constant of the model")
    found = _open(w, EncodedWeight(tensors, name, tuple(shape)))
    form = found.format
    gammas, scales, zero_points = found.gammas(), found.scale_codes(), found.zero_points()
    shared = gammas is not None and gammas.numel() == 1 < shape[0]
    if zero_points is not None or shared or isinstance(form.elements, FloatElements):
        _no_counterpart(w, form, "for a table")
    if _is_narrow(form) and (form.vector is None or form.vector in _BLOCKS):
        rows = _gather_narrow(w, found, indices)
    else:
        rows = w.emit("Cast", w.emit("Gather", _store(w, form, found.codes()), indices, axis=0), to=1)
        if scales is not None:
            rows = _times_gathered(w, found, rows, indices)
    if gammas is None or (scales is None and _is_narrow(form)):
        return rows
    return w.emit("Mul", rows, w.emit("Gather", w.initialiser(gammas.reshape(-1, 1)), indices, axis=0))


def _gather_narrow(w: Writer, found: Encoded, indices: Value) -> str:
    """Rows of codes times their scales by onnxruntime's `GatherBlockQuantized`; without scales, times gamma."""
    scales, gammas, features = found.scale_codes(), found.gammas(), found.shape[1]
    block = found.format.vector
    if scales is None:  # one block a row, with gamma as its scale
        assert gammas is not None
        block = max(16, 1 << (features - 1).bit_length())
        scales = gammas.reshape(-1, 1)
    kind = found.format.scales
    half = kind is not None and kind.kind == "integer" and 8 * 2**kind.bits <= _EXACT_IN_HALF
    stored = scales.to(torch.float16 if half else _FLOAT)
    gathered = w.emit(
        "GatherBlockQuantized",
        w.nibbles(found.codes()),
        indices,
        w.initialiser(stored.contiguous()),
        domain=_CONTRIBUTED,
        block_size=block,
        gather_axis=0,
        quantize_axis=1,
    )
    return w.cast(gathered, _FLOAT, of=stored.dtype)


def _times_gathered(w: Writer, found: Encoded, rows: str, indices: Value) -> str:
    scales, features, vector = found.scale_codes(), found.shape[1], found.format.vector
    assert scales is not None and vector is not None
    if features % vector:
        _no_counterpart(w, found.format, f"for a table of {features} features, no whole number of vectors")
    gathered = w.cast(w.emit("Gather", w.initialiser(scales.contiguous()), indices, axis=0), _FLOAT, of=scales.dtype)
    lead = [0] * indices.rank
    blocks = w.emit("Reshape", rows, w.integers([*lead, -1, vector]))
    products = w.emit("Mul", blocks, w.emit("Unsqueeze", gathered, w.integers([-1])))
    return w.emit("Reshape", products, w.integers([*lead, features]))


def _scales(found: Encoded):
    """Writes the scales of the vectors as float32 numbers; None where the format has none."""
    scales, kind = found.scale_codes(), found.format.scales
    if scales is None or kind is None:
        return None

    def write(w: Writer) -> str:
        narrow = kind.kind == "integer" and kind.bits <= 4
        stored = w.nibbles(scales) if narrow else w.initialiser(scales.contiguous())
        return stored if scales.dtype == _FLOAT else w.emit("Cast", stored, to=1)

    return write


def _store(w: Writer, form: Format, codes: torch.Tensor) -> str:
    if isinstance(form.elements, FloatElements):
        return w.initialiser(codes.contiguous().view(_EIGHT_BIT_FLOATS[form.elements.name]))
    return w.nibbles(codes) if form.elements.bits <= 4 else w.initialiser(codes.contiguous())


def _is_narrow(form: Format) -> bool:
    return isinstance(form.elements, IntegerElements) and form.elements.bits <= 4


def _open(w: Writer, weight: EncodedWeight) -> Encoded:
    """The encoded tensor, of a format that maps."""
    try:
        form = get_format(weight.format)
        buffers = dict(zip(form.buffer_shapes(weight.shape), weight.buffers, strict=True))
        found = Encoded(form, weight.shape, buffers)
    except (TautError, ValueError) as error:
        unsupported(w.node, f"its encoded weight is malformed: {error}", fix="make the graph again")
    elements, kind = form.elements, form.scales
    if isinstance(elements, IntegerElements):
        maps = elements.fraction_bits == 0 and form.offset != "minimum"
        maps = maps and (kind is None or kind.kind in ("integer", "float16", "float32"))
    else:
        maps = elements.name in _EIGHT_BIT_FLOATS and kind is None
    if not maps:
        _no_counterpart(w, form, "")
    return found


def _no_counterpart(w: Writer, form: Format, where: str) -> NoReturn:
    unsupported(
        w.node,
        f"weights in {form.name} ({form.title}) have no counterpart in ONNX {where}".rstrip(),
        fix="choose a format of integer codes with integer or floating-point scales, such as vsq4-v16-s4,"
        " int4-channel, int8-channel or q4_0",
    )
