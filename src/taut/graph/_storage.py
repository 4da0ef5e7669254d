"""Saving and loading: the structure as JSON, the constants as safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from taut.errors import ArtefactError, GraphError, TamperedError
from taut.graph._codec import decode_graph, encode_graph
from taut.graph._document import read_document, read_tensors, write_document, write_tensors
from taut.graph._hash import structural_hash
from taut.graph._types import Graph
from taut.graph._validate import validate

_VERSION = 1
_STORED = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8}
    | {torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64}
)


def save_graph(graph: Graph, json_path: str | Path, safetensors_path: str | Path) -> None:
    """Write a graph to two files; each appears whole or not at all.

    Constants with the same content are stored once. Memory layouts are kept.

    Args:
        graph: the graph.
        json_path: where the structure goes.
        safetensors_path: where the constants go.

    Raises:
        GraphError: if the graph is malformed, or its constants changed since it was made.
        StorageError: if a file could not be written.
    """
    validate(graph, content=True)
    constants = dict(_constants(graph))
    last = sorted(key for key, tensor in constants.items() if _is_channels_last(tensor))
    document = {
        "format": "taut.graph",
        "version": _VERSION,
        "structural_hash": structural_hash(graph),
        "channels_last": last,
        "graph": encode_graph(graph),
    }
    write_tensors(_storable(constants, set(last)), Path(safetensors_path))
    write_document(document, Path(json_path))


def load_graph(json_path: str | Path, safetensors_path: str | Path) -> Graph:
    """Read a graph that `save_graph` wrote; safe on files from anywhere.

    Args:
        json_path: the structure.
        safetensors_path: the constants.

    Returns:
        The graph, validated, its constants checked against their hashes.

    Raises:
        TruncatedError: if a file is missing or cut short.
        VersionError: if a newer version of taut wrote it.
        TamperedError: if the content does not match its hash.
        ArtefactError: if a file is malformed.
        GraphError: if the graph is malformed or holds an operator that it may not hold.
    """
    document = read_document(Path(json_path), "graph", _VERSION)
    constants = _read_constants(Path(safetensors_path), document.get("channels_last", []))
    try:
        graph = decode_graph(document.get("graph"), constants)
    except RecursionError as error:
        raise ArtefactError(f"{json_path} is nested too deep") from error
    validate(graph, content=True)
    if structural_hash(graph) != document.get("structural_hash"):
        raise TamperedError(f"{json_path} does not match the hash it states", fix="write the graph again")
    return graph


def _constants(graph: Graph) -> Iterator[tuple[str, torch.Tensor]]:
    yield from graph.constants.items()
    for node in graph.nodes:
        for region in node.regions:
            yield from _constants(region)


def _is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous()


def _storable(constants: dict[str, torch.Tensor], last: set[str]) -> dict[str, torch.Tensor]:
    """The constants as contiguous tensors that share no memory, channels-last ones with channels moved last."""
    stored = {}
    seen: set[int] = set()
    for key, tensor in constants.items():
        if tensor.dtype not in _STORED:
            raise GraphError(f"a constant has dtype {tensor.dtype}, which a safetensors file cannot hold")
        value = (tensor.permute(0, 2, 3, 1) if key in last else tensor).detach().cpu().contiguous()
        storage = value.untyped_storage().data_ptr()
        stored[key] = value.clone() if storage in seen else value
        seen.add(storage)
    return stored


def _read_constants(path: Path, last: Any) -> dict[str, torch.Tensor]:
    if not isinstance(last, list) or not all(isinstance(key, str) for key in last):
        raise ArtefactError("the list of channels-last constants is malformed")
    constants = read_tensors(path)
    for key in last:
        if key not in constants or constants[key].dim() != 4:
            raise ArtefactError(f"the channels-last constant {key[:40]!r} is missing or not 4-D")
        constants[key] = constants[key].permute(0, 3, 1, 2)
    return constants
