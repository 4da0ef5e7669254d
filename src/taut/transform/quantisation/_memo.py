"""What was encoded before: a search applies the same formats to the same weights again and again."""

from __future__ import annotations

import threading
from collections import OrderedDict

import torch

from taut.graph import content_hash
from taut.numerics import Encoded, Format, encode

_LARGEST_BYTES = 512 * 2**20

_lock = threading.Lock()
_known: OrderedDict[tuple[str, Format], Encoded] = OrderedDict()


def encode_once(rows: torch.Tensor, form: Format) -> Encoded:
    """`encode(rows, form)`, remembered by content while what is remembered stays below 512 MiB.

    Raises:
        ArgumentError: as `encode`.
    """
    key = (content_hash(rows), form)
    with _lock:
        if key in _known:
            _known.move_to_end(key)
            return _known[key]
    encoded = encode(rows, form)
    with _lock:
        _known[key] = encoded
        held = sum(one.nbytes for one in _known.values())
        while held > _LARGEST_BYTES:
            held -= _known.popitem(last=False)[1].nbytes
    return encoded
