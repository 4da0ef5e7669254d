"""The measured model: each operator timed on this host."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from taut.cost._calibrate import thread_count
from taut.cost._model import Bound, Prediction
from taut.cost._operands import isolate
from taut.cost._store import Record, Store
from taut.cost._walk import walk
from taut.errors import ArgumentError, GraphError, MeasurementError
from taut.graph import Graph, Interpreter, Node, bind_sizes, cost_key

_ALONE_SECONDS, _IN_PLACE_SECONDS = 0.02, 0.3
_FEWEST, _MOST = 5, 1000


class Measured:
    """Times every distinct operator of a graph and remembers the times.

    Without inputs each operator runs alone, on operands made up for it that lie in the fastest cache that holds
    them; operators with the same cost key are timed once, ever, per host. With inputs the graph itself runs and
    every node is timed in place, which is closer to the truth and remembered nowhere. Both go through the
    `Interpreter`; times are medians of wall-clock seconds.

    Args:
        store: where times are kept; by default the user's store.
        inputs: what to run the graph on, in the order of its call.
    """

    def __init__(self, store: Store | None = None, *, inputs: tuple[object, ...] | None = None) -> None:
        self.store = store if store is not None else Store()
        self.inputs = inputs

    def predict(self, graph: Graph, sizes: Mapping[str, int], *, threads: int) -> Prediction:
        """The measured time of each node, and their sum.

        Raises:
            ArgumentError: if the sizes are not those of the inputs.
            MeasurementError: if an operator cannot run on operands made up for it.
            StorageError: if the times cannot be kept.
        """
        if self.inputs is not None:
            return self._in_place(graph, sizes, threads)
        known = self.store.latest(self._keys(graph, sizes, threads))

        def leaf(inner: Graph, node: Node, inner_sizes: Mapping[str, int]) -> tuple[float, Bound | None]:
            key = self._key(inner, node, inner_sizes, threads)
            if key not in known:
                known[key] = _time_alone(inner, node, inner_sizes)
                self.store.append({key: known[key]})  # at once, so that an interruption loses one operator at most
            return float(known[key]["seconds"]), None  # pyright: ignore[reportArgumentType]

        with thread_count(threads):
            return walk(graph, sizes, leaf, kind="measured", model="isolated operators")

    def _in_place(self, graph: Graph, sizes: Mapping[str, int], threads: int) -> Prediction:
        inputs = self.inputs or ()
        bound = bind_sizes(graph, *inputs)
        if any(sizes.get(name, size) != size for name, size in bound.items()):
            raise ArgumentError("sizes", dict(sizes), expected=f"the sizes of the inputs, {bound}")
        with thread_count(threads):
            found = _profile(graph, inputs, _IN_PLACE_SECONDS)
        seconds = tuple(found.get(node.id, 0.0) for node in graph.nodes)
        return Prediction(seconds, sum(seconds), "measured", "interpreter in place", (None,) * len(seconds))

    def _keys(self, graph: Graph, sizes: Mapping[str, int], threads: int) -> list[str]:
        keys: list[str] = []

        def leaf(inner: Graph, node: Node, inner_sizes: Mapping[str, int]) -> tuple[float, Bound | None]:
            keys.append(self._key(inner, node, inner_sizes, threads))
            return 0.0, None

        walk(graph, sizes, leaf, kind="measured", model="")
        return keys

    def _key(self, graph: Graph, node: Node, sizes: Mapping[str, int], threads: int) -> str:
        return cost_key(graph, node, sizes, threads=threads, target=self.store.host)


def _time_alone(graph: Graph, node: Node, sizes: Mapping[str, int]) -> Record:
    alone, inputs = isolate(graph, node, sizes)
    try:
        found = _profile(alone, inputs, _ALONE_SECONDS)
    except GraphError as error:
        raise MeasurementError(
            f"node {node.id} ({node.op}) does not run on operands made up for it: {error.message}",
            fix="give real inputs: Measured(store, inputs=...)",
        ) from error
    return {"op": node.op, "seconds": sum(found.values())}


def _profile(graph: Graph, inputs: tuple[object, ...], duration: float) -> dict[int, float]:
    """The median seconds of each node over repeated runs, about `duration` seconds of them."""
    interpreter = Interpreter(graph)
    interpreter(*inputs)  # what a first call allocates and packs is not the model's cost
    start = time.perf_counter()
    runs: list[dict[int, float]] = []
    while len(runs) < _FEWEST or (time.perf_counter() - start < duration and len(runs) < _MOST):
        runs.append(interpreter.profile(*inputs))
    return {node: statistics.median(run[node] for run in runs) for node in runs[0]}
