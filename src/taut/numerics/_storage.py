"""Encoded tensors in a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from taut._files import write_whole
from taut.errors import ArgumentError, ArtefactError, TruncatedError, VersionError
from taut.numerics._encoded import Encoded
from taut.numerics._registry import get_format

_KEY = "taut.numerics"
_VERSION = 1


def save_encoded(path: str | Path, tensors: Mapping[str, Encoded]) -> None:
    """Write encoded tensors to one safetensors file, whole or not at all; replaces what is there.

    Args:
        path: the file.
        tensors: by name; a buffer is stored as `name/buffer`.

    Raises:
        StorageError: it cannot be written.
    """
    header = {name: {"format": item.format.name, "shape": list(item.shape)} for name, item in tensors.items()}
    buffers = {
        f"{name}/{part}": buffer.detach().cpu().contiguous().clone()
        for name, item in tensors.items()
        for part, buffer in item.buffers.items()
    }
    metadata = {_KEY: json.dumps({"version": _VERSION, "tensors": header})}

    def write(place: Path) -> None:
        try:
            safetensors.torch.save_file(buffers, place, metadata)
        except safetensors.SafetensorError as error:  # a full disk, for one, comes in this form
            raise OSError(str(error)) from error

    write_whole(Path(path), write)


def load_encoded(path: str | Path) -> dict[str, Encoded]:
    """Read what `save_encoded` wrote; safe on files from anywhere.

    Args:
        path: the file.

    Raises:
        TruncatedError: the file is missing or cut short.
        VersionError: a newer version of taut wrote it.
        ArtefactError: it holds no encoded tensors, or not what it states.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            buffers = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise TruncatedError(f"{path} is missing") from error
    except (OSError, safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise TruncatedError(f"{path} cannot be read as safetensors: {error}") from error
    try:
        document = json.loads(metadata[_KEY])
        version, header = document["version"], document["tensors"]
        described = {
            str(name): (str(item["format"]), tuple(_size(size) for size in item["shape"]))
            for name, item in header.items()
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArtefactError(f"{path} holds no encoded tensors", expected=f"a {_KEY} entry in its metadata") from error
    if type(version) is not int or version < 1:
        raise ArtefactError(f"{path} states the version {str(version)[:40]}")
    if version > _VERSION:
        raise VersionError(f"{path} has version {version}", expected=f"{_VERSION} at most", fix="install a newer taut")
    return {
        name: _build(path, name, number_format, shape, buffers) for name, (number_format, shape) in described.items()
    }


def _size(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"the size {str(value)[:40]}")
    return value


def _build(
    path: Path, name: str, number_format: str, shape: tuple[int, ...], buffers: dict[str, torch.Tensor]
) -> Encoded:
    try:
        found = get_format(number_format)
        parts = {part: buffers[f"{name}/{part}"] for part in found.buffer_shapes(shape)}
        return Encoded(found, shape, parts)
    except KeyError as error:
        raise TruncatedError(f"{path}: the buffer {error.args[0]!r} is missing") from error
    except ArgumentError as error:
        raise ArtefactError(f"{path}: the tensor {name[:60]!r} is malformed: {error.message}") from error
