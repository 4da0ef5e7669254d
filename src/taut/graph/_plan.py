"""A graph or region laid out for running: a flat list of steps over numbered slots."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from taut.errors import GraphError, GuardError, TautError
from taut.graph._decode import DECODE, decoded_weight
from taut.graph._onednn import prepacked_weight
from taut.graph._policy import CONTROL_FLOW, SCALAR_FUNCTIONS, is_torch_operator, resolve, returns_sequence
from taut.graph._regions import CONTROL_FUNCTIONS
from taut.graph._shortcuts import SHORTCUTS
from taut.graph._types import Argument, Graph, Node, Ref, references

Get = Callable[[list[Any]], Sequence[Any]]


class PlanStep(NamedTuple):
    """One operation: `values[output] = function(*get(values))`, then the slots in `free` are released."""

    function: Callable[..., Any]
    get: Get
    output: int
    outputs: tuple[int, ...]
    free: tuple[int, ...]
    node: Node


class Plan:
    """The steps of a graph or a region.

    Literals and constants lie in slots like computed values, so that gathering an operation's arguments is a single
    `itemgetter` call.

    Args:
        graph: the graph or region.
        device: where constants go; None leaves them.
    """

    def __init__(self, graph: Graph, device: torch.device | None) -> None:
        self.device = device
        self.template: list[Any] = []
        self.slots: dict[Ref, int] = {}
        self.steps: list[PlanStep] = []
        self.inputs: list[int] = []
        last = _last_uses(graph)
        for node in graph.nodes:
            for index in range(len(node.outputs)):
                self.slots[Ref(node.id, index)] = self.slot(None)
            if node.op == "constant":
                tensor = graph.constants[str(node.args[0])]
                self.template[self.slots[Ref(node.id)]] = tensor if device is None else tensor.to(device)
            elif (decoded := decoded_weight(graph, node)) is not None:
                self.template[self.slots[Ref(node.id)]] = decoded if device is None else decoded.to(device)
            elif node.op != "input":
                free = tuple(self.slots[ref] for ref in last.get(node.id, ()))
                packed = {} if device is not None and device.type != "cpu" else prepacked_weight(graph, node)
                self.steps.append(self.step(node, free, packed))
        self.inputs = [self.slots[Ref(node)] for node in graph.inputs]
        self.results = self.getter(graph.output_refs)

    def slot(self, value: Any) -> int:
        """A new slot that holds a value from the start."""
        self.template.append(value)
        return len(self.template) - 1

    def step(self, node: Node, free: tuple[int, ...], packed: Mapping[int, torch.Tensor]) -> PlanStep:
        """The step for a node; `packed` tensors stand in for arguments, by position."""
        function = self.function(node)
        arguments = tuple(packed.get(position, argument) for position, argument in enumerate(node.args))
        keywords = {name: self.literal(value) for name, value in node.kwargs}
        computed = {name: value for name, value in node.kwargs if any(True for _ in references(value))}
        if computed:
            names = tuple(computed)
            fixed = {name: value for name, value in keywords.items() if name not in computed}
            function = _with_keywords(function, names, fixed)
            get = self.getter((*computed.values(), *arguments))
        else:
            function = partial(function, **keywords) if keywords else function
            get = self.getter(arguments)
        slots = tuple(self.slots[Ref(node.id, index)] for index in range(len(node.outputs)))
        several = node.op in CONTROL_FLOW or (is_torch_operator(node.op) and returns_sequence(node.op))
        output = slots[0] if len(slots) == 1 and not several else -1
        return PlanStep(function, get, output, slots, free, node)

    def function(self, node: Node) -> Callable[..., Any]:
        """What computes the node's outputs from its arguments."""
        if node.op == "check":
            return _check
        if node.op in SCALAR_FUNCTIONS:
            return SCALAR_FUNCTIONS[node.op]
        if node.op in CONTROL_FUNCTIONS:
            regions = [Plan(region, self.device).run for region in node.regions]
            return partial(CONTROL_FUNCTIONS[node.op], regions)
        return SHORTCUTS.get(node.op) or resolve(node.op)

    def getter(self, arguments: Sequence[Argument | torch.Tensor]) -> Get:
        """Gathers arguments from the slots."""
        if any(isinstance(item, tuple) and any(True for _ in references(item)) for item in arguments):
            return _nested(tuple(self.shape(item) for item in arguments))
        slots = [self.place(item) for item in arguments]
        if len(slots) == 1:
            return operator.itemgetter(slice(slots[0], slots[0] + 1))
        return operator.itemgetter(*slots) if slots else _nothing

    def place(self, argument: Argument | torch.Tensor) -> int:
        """The slot of a value or a literal."""
        return self.slots[argument] if isinstance(argument, Ref) else self.slot(self.literal(argument))

    def shape(self, argument: Argument | torch.Tensor) -> int | tuple[Any, ...]:
        """Slots in the nesting of the argument."""
        return tuple(map(self.shape, argument)) if isinstance(argument, tuple) else self.place(argument)

    def literal(self, argument: Argument | torch.Tensor) -> Any:
        """A literal as the operator takes it."""
        if isinstance(argument, torch.device) and self.device is not None:
            return self.device
        return list(argument) if isinstance(argument, tuple) else argument

    def run(self, inputs: Sequence[Any], observe: Callable[[int, float], None] | None = None) -> list[Any]:
        """Run on flat inputs; returns the flat outputs.

        Args:
            inputs: one for each input of the graph.
            observe: called after each step with the node id and the time at which it started.
        """
        values = self.template.copy()
        for slot, value in zip(self.inputs, inputs, strict=True):
            values[slot] = value
        node = None
        start = 0.0
        try:
            for function, get, output, outputs, free, node in self.steps:
                if observe is not None:
                    start = time.perf_counter()
                if output >= 0:
                    values[output] = function(*get(values))
                else:
                    results = function(*get(values))
                    if outputs:
                        for slot, value in zip(outputs, results, strict=True):
                            values[slot] = value
                for slot in free:
                    values[slot] = None
                if observe is not None and node is not None:
                    observe(node.id, start)
        except TautError:
            raise
        except Exception as error:
            assert node is not None
            where = f" ({node.source or node.module_path})" if node.source or node.module_path else ""
            raise GraphError(f"node %{node.id} {node.op}{where} failed: {error}") from error
        return list(self.results(values))


def _last_uses(graph: Graph) -> dict[int, list[Ref]]:
    """For each node the values that it is the last to use, and its own values that nobody uses."""
    kept = {Ref(node.id) for node in graph.nodes if node.op in ("constant", DECODE)} | set(graph.output_refs)
    last: dict[Ref, int] = {}
    for node in graph.nodes:
        if node.op not in ("input", "constant"):
            last.update({Ref(node.id, index): node.id for index in range(len(node.outputs))})
        last.update(dict.fromkeys(node.inputs, node.id))
    found: dict[int, list[Ref]] = {}
    for ref, user in last.items():
        if ref not in kept:
            found.setdefault(user, []).append(ref)
    return found


def _nothing(values: list[Any]) -> tuple[()]:
    return ()


def _nested(shape: tuple[Any, ...]) -> Get:
    def fill(part: Any, values: list[Any]) -> Any:
        return values[part] if isinstance(part, int) else [fill(item, values) for item in part]

    return lambda values: [fill(part, values) for part in shape]


def _with_keywords(function: Callable[..., Any], names: tuple[str, ...], fixed: dict[str, Any]) -> Callable[..., Any]:
    count = len(names)

    def call(*values: Any) -> Any:
        return function(*values[count:], **dict(zip(names, values, strict=False)), **fixed)

    return call


def _check(holds: Any, message: str) -> tuple[()]:
    if not holds:
        raise GuardError(f"a runtime assertion of the model failed: {message}")
    return ()
