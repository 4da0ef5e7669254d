"""The roofline model: what the arithmetic or the data movement of each operator takes at least."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from taut.cost._families import PRODUCTS, READERS, family, number_format
from taut.cost._model import Bound, Prediction
from taut.cost._peaks import Peaks, Rate
from taut.cost._walk import walk
from taut.errors import ArgumentError
from taut.graph import Graph, Node, TensorType, evaluate, operation_cost


class Roofline:
    """Predicts `overhead + max(work / rate, bytes / bandwidth)` for each operator.

    Work is operations (two for a multiply-add) for products and elements for the rest; the rate is what the
    operator's family was seen to sustain through ATen (`Peaks.rates`), or the peak of its number format where the
    family was not calibrated. The bandwidth is that of the level of memory that holds the operator's inputs and
    outputs; weights come from the level that holds all the weights of the graph, since the rest of the model has
    passed through the caches by the time an operator runs again. Source: S. Williams, A. Waterman, D. Patterson,
    "Roofline: an insightful visual performance model" (CACM 2009), with the levels and call overhead added.

    Args:
        peaks: the limits of the host, from `calibrate`; their thread count is the one that `predict` accepts.
        runner: what calls the operators; decides the overhead of a call.
    """

    def __init__(self, peaks: Peaks, *, runner: Literal["interpreter", "eager"] = "interpreter") -> None:
        if runner not in peaks.dispatch:
            raise ArgumentError("runner", runner, expected=" or ".join(sorted(peaks.dispatch)))
        self.peaks = peaks
        self.runner = runner

    def predict(self, graph: Graph, sizes: Mapping[str, int], *, threads: int) -> Prediction:
        """The modelled time of one run.

        Raises:
            ArgumentError: if `threads` is not the thread count of the peaks, or a symbol has no size.
        """
        if threads != self.peaks.threads:
            raise ArgumentError(
                "threads",
                threads,
                expected=f"{self.peaks.threads}, the thread count of the calibrated peaks",
                fix=f"use Roofline(calibrate(threads={threads}))",
            )
        resident = sum(tensor.nbytes for tensor in graph.constants.values())

        def leaf(inner: Graph, node: Node, inner_sizes: Mapping[str, int]) -> tuple[float, Bound | None]:
            return self._node(inner, node, inner_sizes, resident)

        return walk(graph, sizes, leaf, kind="modelled", model="roofline")

    def _node(self, graph: Graph, node: Node, sizes: Mapping[str, int], resident: int) -> tuple[float, Bound | None]:
        dispatch = self.peaks.dispatch[self.runner]
        cost = operation_cost(graph, node)
        read, written = evaluate(cost.bytes_read, sizes), evaluate(cost.bytes_written, sizes)
        if not read + written:  # a view describes its input's memory anew
            return dispatch, "overhead"
        kind = family(graph, node)
        rate = self._rate(kind, number_format(graph, node))
        if kind in PRODUCTS:
            work = 2 * evaluate(cost.macs, sizes)
        else:
            work = _elements(graph, node, sizes, of_input=kind in READERS)
        arithmetic = work / rate.per_second
        moved, weights = read + written, min(_constant_bytes(graph, node), read)
        memory = weights / self.peaks.bytes_per_second(max(moved, resident))
        memory += (moved - weights) / self.peaks.bytes_per_second(moved)
        overhead = dispatch + rate.overhead
        if kind == "pointwise":  # what ATen streams, at best from a cache
            arithmetic, memory = 0.0, max(arithmetic, memory)
        terms: dict[Bound, float] = {"compute": arithmetic, "memory": memory, "overhead": overhead}
        return overhead + max(arithmetic, memory), max(terms, key=lambda name: terms[name])

    def _rate(self, kind: str, number: str) -> Rate:
        """The calibrated rate, else that of the same family in fp32 scaled by the peaks, else the peak itself."""
        rates, flops = self.peaks.rates, self.peaks.flops
        if f"{kind}.{number}" in rates:
            return rates[f"{kind}.{number}"]
        plain = rates.get(f"{kind}.fp32")
        if kind not in PRODUCTS:
            return plain or Rate(0.0, math.inf)
        scale = flops.get(number, flops["fp32"]) / flops["fp32"]
        return Rate(plain.overhead, plain.per_second * scale) if plain else Rate(0.0, flops["fp32"] * scale)


def _elements(graph: Graph, node: Node, sizes: Mapping[str, int], *, of_input: bool) -> int:
    """Elements of the outputs, or of the first input: a pooling window reads more than it writes."""
    values = [graph.value_type(ref) for ref in node.inputs[:1]] if of_input else list(node.outputs)
    tensors = [value for value in values if isinstance(value, TensorType)]
    return sum(math.prod(evaluate(size, sizes) for size in tensor.shape) for tensor in tensors)


def _constant_bytes(graph: Graph, node: Node) -> int:
    """Bytes of the constants among the inputs, each counted once."""
    used = map(graph.constant, dict.fromkeys(node.inputs))
    return sum(tensor.nbytes for tensor in used if tensor is not None)
