"""Runs a graph on ATen: the semantic reference for every other backend."""

from __future__ import annotations

import time
from typing import Any

import torch

from taut.graph._borrowed import borrowed_outputs
from taut.graph._inputs import InputChecker, check_argument
from taut.graph._plan import Plan
from taut.graph._types import Graph, Ref, map_tree


class Interpreter:
    """A graph as a callable with the signature of the model.

    It may be called from several threads at once.

    Args:
        graph: the graph to run.
        device: where to run; constants are moved there. None keeps each where it is.
        gradients: whether operators record what a backward pass needs; inputs may then require gradients.

    Attributes:
        graph: the graph.

    Raises:
        GraphError: if the graph holds an operator that it may not hold.
    """

    def __init__(self, graph: Graph, *, device: torch.device | str | None = None, gradients: bool = False) -> None:
        check_argument(graph)
        self.graph = graph
        self._gradients = gradients
        self._checker = InputChecker(graph)
        self._plan = Plan(graph, None if device is None else torch.device(device))
        leaf = graph.outputs
        self._single = isinstance(leaf, Ref)
        self._borrowed = borrowed_outputs(graph)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Args:
            args: the model's positional arguments; tensors with the dtypes and shapes of the captured inputs.
            kwargs: the model's keyword arguments.

        Returns:
            What the model returns, in memory apart from arguments and constants; an output class of its own becomes
            a dictionary.

        Raises:
            GuardError: if an input does not fit, or a runtime assertion of the model fails.
            GraphError: if an operator fails.
        """
        inputs = self._checker.bind(args, kwargs)
        self._checker.check(inputs)
        with torch.enable_grad() if self._gradients else torch.inference_mode():
            leaves = self._plan.run(inputs)
            for position in self._borrowed:
                leaves[position] = leaves[position].clone()
            return self._structure(leaves)

    def profile(self, *args: Any, **kwargs: Any) -> dict[int, float]:
        """Run once and time each operation.

        Args:
            args: as for a call.
            kwargs: as for a call.

        Returns:
            Wall-clock seconds by node id, for each node that does something.
        """
        inputs = self._checker.bind(args, kwargs)
        self._checker.check(inputs)
        seconds: dict[int, float] = {}
        with torch.inference_mode():
            self._plan.run(inputs, lambda node, start: seconds.__setitem__(node, time.perf_counter() - start))
        return seconds

    def _structure(self, leaves: list[Any]) -> Any:
        following = iter(leaves)
        return leaves[0] if self._single else map_tree(self.graph.outputs, lambda _: next(following))
