"""Writing a graph as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from taut._files import check_new, write_whole
from taut.errors import ArgumentError, ExportError, MissingExtraError
from taut.graph import Graph

if TYPE_CHECKING:
    from onnx import ModelProto

_FORCE = "choose another name, or replace it with force"
_SMALL = 1024  # bytes; runtimes read shapes, axes and the like from the model itself
_LARGEST_FILE = 2**31 - 2**20  # protobuf reads no message of 2 GiB; the rest of the model is far below a MiB


def export_onnx(graph: Graph, path: str | Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write a graph as an ONNX model that computes the same.

    Inputs, outputs and dynamic dimensions keep their names. Integer layers stay integer, encoded weights stay
    encoded; the guide says which formats map. Runtime checks of the model are left out.

    Args:
        graph: the graph, from `capture` or an optimised session.
        path: the file, ending in `.onnx`. A model of 2 GiB or more gets its tensors in a second file, `path` plus
            `.data`.
        force: replace files that are there already.

    Returns:
        The files that were written.

    Raises:
        MissingExtraError: the package onnx is not installed.
        ArgumentError: the path has another ending, or is there already and `force` is False.
        ExportError: an operator or number format has no counterpart in ONNX; named with its place in the model.
        StorageError: a file cannot be written; what was there before stays.
    """
    path = Path(path)
    data = path.with_name(f"{path.name}.data")
    if path.suffix != ".onnx":
        raise ArgumentError("path", str(path), expected="a file ending in .onnx")
    if not force:
        check_new(path, "path", fix=_FORCE)
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", extra="onnx", needed_for="writing an ONNX model") from None
    from taut.export._model import build_model

    model = build_model(graph)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < _LARGEST_FILE:
        _check(model)
        write_whole(path, lambda temporary: onnx.save_model(model, temporary))
        return (path,)
    if not force:
        check_new(data, "path", fix=_FORCE)

    def write_both(temporary: Path) -> None:
        def write_data(target: Path) -> None:
            _move_tensors(model, target)
            onnx.save_model(model, temporary)
            _check(str(temporary))
            _rename_data(model, data.name)
            onnx.save_model(model, temporary)

        write_whole(data, write_data)  # neither file gets its name before both are complete

    write_whole(path, write_both)
    return (path, data)


def _check(model: ModelProto | str) -> None:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ExportError(f"the exported model is no valid ONNX: {first}", fix="report this as a defect") from error


def _move_tensors(model: ModelProto, target: Path) -> None:
    """Write the large tensors to a file of their own, and refer to it by name from the model."""
    with target.open("wb") as file:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < _SMALL:
                continue
            # Aligned, so that a runtime can map the file into memory.
            offset = -(-file.tell() // 4096) * 4096
            file.seek(offset)
            file.write(tensor.raw_data)
            entries = {"location": target.name, "offset": str(offset), "length": str(len(tensor.raw_data))}
            tensor.ClearField("raw_data")
            tensor.data_location = tensor.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)


def _rename_data(model: ModelProto, name: str) -> None:
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
