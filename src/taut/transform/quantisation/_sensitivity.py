"""What each layer loses when it alone is quantised."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch.utils import _pytree as pytree

from taut.cost import CostModel, Store
from taut.errors import ArgumentError, DataError, GuardError, Interrupted
from taut.graph import Graph, Interpreter, bind_sizes, content_hash, structural_hash
from taut.transform._catalogue import get_pass
from taut.transform.quantisation._quantise import LEAVE, quantisable_paths
from taut.transform.quantisation._units import find_units

Batch: TypeAlias = Sequence[torch.Tensor]
Progress: TypeAlias = Callable[[str, float], None]

_REVISION = 1  # of codecs and kernels: raise it where the same measurement would give another figure than before


@dataclasses.dataclass(frozen=True, slots=True)
class SensitivityEntry:
    """One layer at one scheme, all others in float32.

    Attributes:
        layer: the layer's path.
        scheme: the scheme; "float32" leaves the layer as it is.
        error: squared error of the graph's outputs over their squared size, both summed over the batches; the mean
            over the outputs that are floating point.
        bytes: bytes of the layer's constants.
        seconds: modelled time of the layer; None without a cost model.
    """

    layer: str
    scheme: str
    error: float
    bytes: int
    seconds: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class SensitivityTable:
    """Layers by schemes.

    Attributes:
        layers: paths in the order of the graph.
        schemes: the schemes measured, "float32" first.
        entries: what was measured; all combinations, unless the measurement was interrupted.
        rest_bytes: bytes of the graph's constants beside those of the layers.
        rest_seconds: modelled time of the graph beside that of the layers; 0 without a cost model.
    """

    layers: tuple[str, ...]
    schemes: tuple[str, ...]
    entries: tuple[SensitivityEntry, ...]
    rest_bytes: int
    rest_seconds: float

    @property
    def missing(self) -> list[tuple[str, str]]:
        """The combinations of layer and scheme that were not measured."""
        found = {(entry.layer, entry.scheme) for entry in self.entries}
        return [pair for pair in itertools.product(self.layers, self.schemes) if pair not in found]


def measure_sensitivity(
    graph: Graph,
    batches: Sequence[Batch],
    schemes: Sequence[str],
    *,
    skip: Sequence[str] = (),
    minimum_features: int = 16,
    cost_model: CostModel | None = None,
    threads: int = 1,
    store: Store | None = None,
    progress: Progress | None = None,
) -> SensitivityTable:
    """Quantise one layer at a time, at each scheme, and compare the graph's outputs with those of the float graph.

    Args:
        graph: the float graph.
        batches: inputs of the graph, on which errors are measured.
        schemes: names of schemes; "float32" is always among the table's.
        skip: module paths whose layers stay, with all below them.
        minimum_features: as the option of the pass `quantise`.
        cost_model: predicts seconds, at the sizes of the first batch; without one the table has bytes only.
        threads: the thread count that the cost model predicts for.
        store: keeps each measurement, so that the same call goes on where an earlier one was stopped.
        progress: told what is being measured, and the share that is done.

    Raises:
        ArgumentError: no scheme, an unknown one, or no layer that can be quantised.
        DataError: a batch that the graph does not take, no batch, or outputs without a finite floating-point value.
        Interrupted: on Ctrl-C; its `result` is the table so far.
        StorageError: the store cannot be written.
    """
    names = list(dict.fromkeys(schemes))
    if not names or LEAVE in names:
        raise ArgumentError("schemes", list(schemes), expected=f"at least one scheme, without {LEAVE}")
    quantise = get_pass("quantise")
    common = {"skip": list(skip), "minimum_features": minimum_features}
    for name in names:
        quantise.applies(graph, scheme=name, **common)  # an unknown scheme shows before anything is measured
    layers = quantisable_paths(graph, skip=skip, minimum_features=minimum_features)
    if not layers:
        raise ArgumentError("graph", f"{len(graph.nodes)} nodes", expected="a layer that can be quantised")
    references = reference_outputs(graph, batches)
    costs = _Costs(graph, cost_model, bind_sizes(graph, *batches[0]), threads)
    entries: list[SensitivityEntry] = []
    pairs = [(layer, name) for layer in layers for name in names]
    memory = None if store is None else _Memory(store, graph, batches, common)
    try:
        for index, (layer, name) in enumerate(pairs):
            known = None if memory is None else memory.recall(layer, name)
            if known is not None and cost_model is None:
                entries.append(known)
                continue
            if progress is not None:
                progress(f"{layer} at {name}", index / len(pairs))
            changed = quantise.apply(graph, scheme=LEAVE, layers=[f"{layer}={name}"], **common).graph
            error = relative_error(changed, batches, references) if known is None else known.error
            entries.append(SensitivityEntry(layer, name, error, *costs.of_change(layer, changed)))
            if memory is not None and known is None:
                memory.keep(entries[-1])
    except KeyboardInterrupt as interrupt:
        stop = Interrupted(f"stopped after {len(entries)} of {len(pairs)} measurements")
        stop.result = costs.table(layers, names, entries)
        raise stop from interrupt
    return costs.table(layers, names, entries)


class _Memory:
    """What was measured before on this host: on the same graph and the same batches."""

    def __init__(self, store: Store, graph: Graph, batches: Sequence[Batch], common: Mapping[str, object]) -> None:
        held = hashlib.sha256(repr((_REVISION, structural_hash(graph), sorted(common.items()))).encode())
        for batch in batches:
            held.update(" ".join(content_hash(tensor) for tensor in batch).encode())
        self._store, self._key = store, held.hexdigest()

    def recall(self, layer: str, scheme: str) -> SensitivityEntry | None:
        """The measurement without a modelled time; None where there is none, or none that makes sense."""
        name = self._name(layer, scheme)
        record = self._store.latest([name]).get(name, {})
        error, stored = record.get("error"), record.get("bytes")
        if not isinstance(error, float) or not 0 <= error < math.inf or not isinstance(stored, int):
            return None
        return SensitivityEntry(layer, scheme, error, stored, None)

    def keep(self, entry: SensitivityEntry) -> None:
        """Write the measurement down."""
        self._store.append({self._name(entry.layer, entry.scheme): {"error": entry.error, "bytes": entry.bytes}})

    def _name(self, layer: str, scheme: str) -> str:
        return f"sensitivity {self._key} {layer} {scheme}"


class _Costs:
    """What a graph costs beyond the float one, laid to the account of the layer that was changed."""

    def __init__(self, graph: Graph, model: CostModel | None, sizes: Mapping[str, int], threads: int) -> None:
        self._model, self._sizes, self._threads = model, sizes, threads
        self._bytes, self._seconds = self._total(graph)
        self._units = {unit.path: unit for unit in find_units(graph)}
        self._own: dict[str, float] = {}
        if model is not None:
            spent = model.predict(graph, sizes, threads=threads).seconds
            self._own = {path: sum(spent[node] for node in unit.nodes) for path, unit in self._units.items()}

    def of_float(self, path: str) -> tuple[int, float | None]:
        """Bytes and seconds of a layer that stays."""
        return self._units[path].nbytes, self._own.get(path)

    def of_change(self, path: str, changed: Graph) -> tuple[int, float | None]:
        """Bytes and seconds of the layer that was changed."""
        stored, seconds = self._total(changed)
        before, own = self.of_float(path)
        return before + stored - self._bytes, None if own is None else max(own + seconds - self._seconds, 0.0)

    def table(self, layers: tuple[str, ...], names: Sequence[str], entries: list[SensitivityEntry]) -> SensitivityTable:
        """The table, with the float layers in front."""
        floats = [SensitivityEntry(layer, LEAVE, 0.0, *self.of_float(layer)) for layer in layers]
        rest_bytes = self._bytes - sum(entry.bytes for entry in floats)
        rest_seconds = self._seconds - sum(entry.seconds or 0.0 for entry in floats)
        return SensitivityTable(layers, (LEAVE, *names), (*floats, *entries), rest_bytes, rest_seconds)

    def _total(self, graph: Graph) -> tuple[int, float]:
        stored = sum(tensor.nbytes for tensor in graph.constants.values())
        if self._model is None:
            return stored, 0.0
        return stored, self._model.predict(graph, self._sizes, threads=self._threads).total


def reference_outputs(graph: Graph, batches: Sequence[Batch]) -> list[list[torch.Tensor]]:
    """The float graph's outputs for each batch, in float64."""
    if not batches:
        raise DataError("no calibration data", expected="at least one batch")
    run = Interpreter(graph)
    references = []
    for index, batch in enumerate(batches):
        try:
            leaves = float_leaves(run(*batch))
        except GuardError as error:
            raise DataError(f"batch {index}: {error.message}", expected=error.expected, fix=error.fix) from error
        if not leaves or not all(bool(torch.isfinite(leaf).all()) for leaf in leaves):
            what = "NaN or infinity" if leaves else "no floating-point tensor"
            raise DataError(f"batch {index}: the float graph gives {what}", expected="finite floating-point outputs")
        references.append(leaves)
    return references


def float_leaves(outputs: object) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves(outputs)
    return [leaf.double() for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def relative_error(graph: Graph, batches: Sequence[Batch], references: list[list[torch.Tensor]]) -> float:
    """Squared error over squared size, the mean over the outputs."""
    run = Interpreter(graph)
    noise = [0.0] * len(references[0])
    signal = [0.0] * len(references[0])
    for batch, expected in zip(batches, references, strict=True):
        for index, (left, right) in enumerate(zip(expected, float_leaves(run(*batch)), strict=True)):
            noise[index] += float((right - left).square().sum())
            signal[index] += float(left.square().sum())
    shares = [error / size for error, size in zip(noise, signal, strict=True) if size]
    return sum(shares) / max(len(shares), 1)
