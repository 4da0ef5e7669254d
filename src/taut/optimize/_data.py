"""The user's own data: batches to run, labels to score."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from taut.errors import ArgumentError, DataError
from taut.graph import Graph, TensorType
from taut.optimize._load import call_user, load_function

Batch = tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Batches in the order of the labels.

    Attributes:
        batches: the positional inputs of one call each; the first dimension of every tensor counts samples.
        labels: one entry a sample (or a group of samples, for metrics over pairs), or None.
        source: where the data came from.
        synthetic: True if the inputs are random because the user gave none.
    """

    batches: tuple[Batch, ...]
    labels: torch.Tensor | None
    source: str
    synthetic: bool = False

    @property
    def samples(self) -> int:
        """The number of samples in all batches."""
        return sum(rows(batch) for batch in self.batches)


def rows(batch: Batch) -> int:
    """The number of samples in a batch."""
    return int(batch[0].shape[0]) if batch and batch[0].dim() else 1


def load_data(data: str | Mapping[str, Any], *, batch_size: int, argument: str = "--data") -> Dataset:
    """Read the user's data from a function, a file or a mapping.

    Args:
        data: `path.py:function`, `package.module:function`, a `.npz` or `.safetensors` file with arrays `input_0`,
            `input_1`, ... and `labels`, or the mapping that such a function returns: `inputs` is a tuple of tensors
            (samples first) or a list of tuples, one a batch; `labels` is a tensor or None.
        batch_size: how many samples make a batch where `inputs` is one tuple.
        argument: the option that gave it, for messages.

    Raises:
        DataError: the content does not have that form.
        ArgumentError: a string that is none of these.
    """
    if isinstance(data, str):
        source = data
        if data.endswith((".npz", ".safetensors")):
            mapping = _read_arrays(Path(data), argument)
        else:
            function, _ = load_function(data, argument=argument)
            mapping = call_user(function, data)
    else:
        source, mapping = "given in Python", data
    if not isinstance(mapping, Mapping) or "inputs" not in mapping:
        raise DataError(
            f"{source}: got a {type(mapping).__name__}",
            expected='a mapping {"inputs": tuple of tensors or list of tuples, "labels": tensor or None}',
        )
    batches = _as_batches(mapping["inputs"], batch_size, source)
    labels = mapping.get("labels")
    if labels is not None:
        labels = _as_tensor(labels, "labels", source)
        labels = labels.float() if labels.dtype is torch.bfloat16 else labels  # numpy has no bfloat16
    dataset = Dataset(batches, labels, source)
    _check_labels(dataset)
    return dataset


def _read_arrays(path: Path, argument: str) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file", fix=f"check the path given with {argument}")
    if path.suffix == ".npz" and not zipfile.is_zipfile(path):
        raise DataError(f"{path}: cannot be read (no archive, or cut short)", expected="an intact .npz file")
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays: dict[str, Any] = {name: torch.from_numpy(archive[name]) for name in archive.files}
        else:
            arrays = dict(load_file(path))
    except (SafetensorError, ValueError, TypeError, OSError, EOFError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read ({error})", expected="an intact file without pickled objects"
        ) from error
    except Exception as error:  # zipfile.BadZipFile and zlib.error have no common base
        raise DataError(f"{path}: cannot be read ({error})", expected="an intact .npz file") from error
    names = sorted((name for name in arrays if name.startswith("input_")), key=lambda name: (len(name), name))
    if not names:
        raise DataError(f"{path}: holds {sorted(arrays)}", expected="arrays input_0, input_1, ... and labels")
    return {"inputs": tuple(arrays[name] for name in names), "labels": arrays.get("labels")}


def _as_tensor(value: Any, what: str, source: str) -> torch.Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{source}: {what} is a {type(value).__name__} ({error})", expected="a tensor or array"
        ) from error
    return tensor.detach()


def _as_batches(inputs: Any, batch_size: int, source: str) -> tuple[Batch, ...]:
    if isinstance(inputs, list):
        made = []
        for index, batch in enumerate(inputs):
            parts = batch if isinstance(batch, (tuple, list)) else (batch,)
            made.append(
                tuple(_as_tensor(part, f"input {slot} of batch {index}", source) for slot, part in enumerate(parts))
            )
        batches = tuple(made)
    else:
        parts = inputs if isinstance(inputs, tuple) else (inputs,)
        tensors = tuple(_as_tensor(part, f"input {slot}", source) for slot, part in enumerate(parts))
        if any(tensor.dim() == 0 for tensor in tensors):
            raise DataError(f"{source}: an input is a scalar", expected="tensors whose first dimension counts samples")
        lengths = {int(tensor.shape[0]) for tensor in tensors}
        if len(lengths) > 1:
            raise DataError(
                f"{source}: inputs have {sorted(lengths)} samples", expected="the same number in each input"
            )
        count = lengths.pop() if lengths else 0
        starts = range(0, count - count % batch_size if count >= batch_size else count, batch_size)
        batches = tuple(tuple(tensor[start : start + batch_size] for tensor in tensors) for start in starts)
    if not batches:
        raise DataError(f"{source}: no samples", expected="at least one batch")
    return batches


def _check_labels(dataset: Dataset) -> None:
    if dataset.labels is None:
        return
    if dataset.labels.dim() == 0 or not len(dataset.labels):
        raise DataError(f"{dataset.source}: labels have no samples", expected="one label a sample")
    if dataset.labels.is_floating_point() and not bool(torch.isfinite(dataset.labels).all()):
        raise DataError(f"{dataset.source}: labels hold NaN or infinity", fix="drop those samples")


def match_labels(dataset: Dataset, batch_size: int) -> Dataset:
    """Drop the labels of the samples that did not fill the last batch.

    Raises:
        DataError: the labels do not line up with the samples.
    """
    labels, samples = dataset.labels, dataset.samples
    if labels is None or samples % len(labels) == 0:
        return dataset
    if 0 < len(labels) - samples < batch_size:
        return dataclasses.replace(dataset, labels=labels[:samples])
    raise DataError(
        f"{dataset.source}: {len(labels)} labels for {samples} samples",
        expected="one label a sample, or one for each group of consecutive samples",
    )


def spread(batches: Sequence[Batch], count: int) -> list[int]:
    """Indices of `count` batches at the midpoints of equal shares: sorted data keeps its distribution."""
    if count >= len(batches):
        return list(range(len(batches)))
    return [(2 * index + 1) * len(batches) // (2 * count) for index in range(count)]


def thin_out(dataset: Dataset, count: int) -> Dataset:
    """At most `count` batches with their labels, evenly spread.

    A data set whose labels cannot be told apart by batch, because a group of samples crosses batches, stays whole.
    """
    chosen = spread(dataset.batches, count)
    if len(chosen) == len(dataset.batches):
        return dataset
    labels = dataset.labels
    if labels is not None:
        group = dataset.samples // len(labels)
        sizes = [rows(batch) for batch in dataset.batches]
        if any(size % group for size in sizes):
            return dataset
        parts = labels.split([size // group for size in sizes])
        labels = torch.cat([parts[index] for index in chosen])
    return dataclasses.replace(dataset, batches=tuple(dataset.batches[index] for index in chosen), labels=labels)


def check_inputs(dataset: Dataset, graph: Graph) -> None:
    """Check the number, rank, type and finiteness of every batch's inputs.

    Raises:
        DataError: naming the batch, the input and what the model takes.
    """
    nodes = [graph.nodes[node] for node in graph.inputs]
    for index, batch in enumerate(dataset.batches):
        if len(batch) != len(nodes):
            names = ", ".join(str(node.args[0]) for node in nodes)
            raise DataError(
                f"{dataset.source}: batch {index} has {len(batch)} inputs", expected=f"{len(nodes)}: {names}"
            )
        for node, tensor in zip(nodes, batch, strict=True):
            _check_input(f"{dataset.source}: batch {index}, input {node.args[0]}", node.outputs[0], tensor)


def _check_input(where: str, declared: object, tensor: torch.Tensor) -> None:
    if not isinstance(declared, TensorType):
        return
    shape = tuple(tensor.shape)
    fits = len(shape) == len(declared.shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(declared.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, declared.shape))
        raise DataError(
            f"{where} has shape {shape}",
            expected=f"({wanted})",
            fix="declare the dimension dynamic (third value of the factory) or change the batch",
        )
    if tensor.dtype != declared.dtype:
        raise DataError(
            f"{where} is {tensor.dtype}", expected=str(declared.dtype), fix="convert it in the data function"
        )
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = (~torch.isfinite(tensor.reshape(tensor.shape[0], -1))).any(1).nonzero().flatten().tolist()
        raise DataError(
            f"{where} holds NaN or infinity in sample {bad[0]} ({len(bad)} samples in all)", fix="drop or mend them"
        )


def synthesise(examples: Sequence[Any], *, batches: int = 8, seed: int = 0) -> Dataset:
    """Random inputs like the example: normal with its mean and spread, integers drawn from its own values.

    Raises:
        ArgumentError: an example input is no tensor.
    """
    generator = torch.Generator().manual_seed(seed)
    made: list[Batch] = []
    for _ in range(batches):
        batch = []
        for index, example in enumerate(examples):
            if not isinstance(example, torch.Tensor):
                raise ArgumentError(
                    "example_inputs",
                    example,
                    expected=f"a tensor at position {index}",
                    fix="give the data with --data, or bind what is no tensor when the model is built",
                )
            if example.is_floating_point():
                spread = float(example.std()) if example.numel() > 1 else 1.0
                noise = torch.randn(example.shape, generator=generator, dtype=torch.float32)
                batch.append((noise * (spread or 1.0) + float(example.mean())).to(example.dtype))
            else:
                picks = torch.randint(0, max(example.numel(), 1), example.shape, generator=generator)
                batch.append(example.reshape(-1)[picks] if example.numel() else example.clone())
        made.append(tuple(batch))
    return Dataset(tuple(made), None, "random inputs shaped like the example", synthetic=True)
