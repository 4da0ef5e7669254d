"""The two files of an artefact: a JSON document and tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from taut._files import write_whole
from taut.errors import ArtefactError, TruncatedError, VersionError


def write_document(document: Mapping[str, Any], path: Path) -> None:
    """Write a JSON document whole or not at all.

    Raises:
        StorageError: if it cannot be written.
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write contiguous tensors that share no memory, whole or not at all.

    Raises:
        StorageError: if they cannot be written.
    """
    write_whole(path, lambda temporary: _save_tensors(dict(tensors), temporary))


def read_document(path: Path, kind: str, version: int) -> dict[str, Any]:
    """Read a JSON document that states "format": "taut.<kind>" and a version.

    Args:
        path: the file.
        kind: e.g. "graph".
        version: the newest version that the caller understands.

    Raises:
        TruncatedError: if it is missing or cut short.
        VersionError: if a newer version of taut wrote it.
        ArtefactError: if it is malformed.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise TruncatedError(f"{path} is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from error
    try:
        document = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            raise TruncatedError(f"{path} is cut short") from error
        raise ArtefactError(f"{path} is not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is malformed: {error}") from error
    if not isinstance(document, dict) or document.get("format") != f"taut.{kind}":
        raise ArtefactError(f"{path} holds no {kind}", expected=f'"format": "taut.{kind}"')
    stated = document.get("version")
    if type(stated) is not int or stated < 1:
        raise ArtefactError(f"{path} states the version {str(stated)[:40]}")
    if stated > version:
        raise VersionError(
            f"{path} has version {str(stated)[:40]} of the {kind} format",
            expected=f"{version} at most",
            fix="install a newer taut",
        )
    return document


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read what `write_tensors` wrote.

    Raises:
        TruncatedError: if it is missing or cannot be read.
    """
    try:
        # a copy: a mapped file that someone cuts short later would kill the process
        return {key: tensor.clone() for key, tensor in safetensors.torch.load_file(path).items()}
    except FileNotFoundError as error:
        raise TruncatedError(f"{path} is missing") from error
    except (OSError, safetensors.SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise TruncatedError(f"{path} cannot be read as safetensors: {error}") from error


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        safetensors.torch.save_file(tensors, path)
    except safetensors.SafetensorError as error:  # a full disk, for one, comes in this form
        raise OSError(str(error)) from error


def _refuse(literal: str) -> None:
    raise ValueError(f"the literal {literal}")
