"""Saving and loading: the program as JSON, the constants as safetensors; never machine code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from taut.errors import ArtefactError, GraphError, TamperedError
from taut.graph import content_hash, read_document, read_tensors, validate, write_document, write_tensors
from taut.runtime._codec import decode_program, encode_program
from taut.runtime._executable import verify
from taut.runtime._program import DTYPES, Program

_VERSION = 1


def save_program(program: Program, json_path: str | Path, safetensors_path: str | Path) -> None:
    """Write a program to two files; each appears whole or not at all.

    Constants with the same content are stored once, and contiguously.

    Args:
        program: the program.
        json_path: where the program goes.
        safetensors_path: where the constants go.

    Raises:
        GraphError: if the program is malformed.
        StorageError: if a file could not be written.
    """
    verify(program)
    tensors = [_storable(tensor) for tensor in program.constants]
    hashes = [content_hash(tensor) for tensor in tensors]
    document = encode_program(program, hashes)
    write_tensors(dict(zip(hashes, tensors, strict=True)), Path(safetensors_path))
    write_document(
        {"format": "taut.program", "version": _VERSION, "hash": _digest(document), "program": document},
        Path(json_path),
    )


def load_program(json_path: str | Path, safetensors_path: str | Path) -> Program:
    """Read a program that `save_program` wrote; safe on files from anywhere.

    Args:
        json_path: the program.
        safetensors_path: the constants.

    Returns:
        The program, verified, its constants checked against their hashes.

    Raises:
        TruncatedError: if a file is missing or cut short.
        VersionError: if a newer version of taut wrote it.
        TamperedError: if the content does not match its hash.
        ArtefactError: if a file is malformed.
        GraphError: if the program is malformed.
    """
    document = read_document(Path(json_path), "program", _VERSION)
    constants = read_tensors(Path(safetensors_path))
    data = document.get("program")
    try:
        if _digest(data) != document.get("hash"):
            raise TamperedError(f"{json_path} does not match the hash it states", fix="write the program again")
        program = decode_program(data, constants)
    except RecursionError as error:
        raise ArtefactError(f"{json_path} is nested too deep") from error
    for key, tensor in constants.items():
        if content_hash(tensor) != key:
            raise TamperedError(f"{safetensors_path}: a constant does not match its hash", fix="write it again")
    for graph in program.fallbacks:
        validate(graph)
    verify(program)
    return program


def program_hash(program: Program) -> str:
    """A hash of the whole program with its constants (64 hex digits), stable across processes."""
    return _digest(encode_program(program, [content_hash(_storable(tensor)) for tensor in program.constants]))


def _digest(document: Any) -> str:
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, UnicodeEncodeError) as error:
        raise ArtefactError(f"the program cannot be hashed: {error}") from error
    return hashlib.sha256(text).hexdigest()


def _storable(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype not in DTYPES:
        raise GraphError(f"a constant has dtype {tensor.dtype}", expected=", ".join(map(str, DTYPES)))
    # Of a tensor with a larger storage, or one that others share, safetensors would refuse the rest.
    value = tensor.detach().cpu().contiguous()
    return value.clone() if value.untyped_storage().nbytes() != value.nbytes else value
