"""A program called like the model that it was compiled from."""

from __future__ import annotations

from typing import Any

from taut.graph import InputChecker, Ref, map_tree
from taut.runtime import Program, Session


class CallableProgram:
    """A program with the model's signature; it may be called from several threads at once.

    Attributes:
        program: what the machine runs.
        session: the native session behind it.
    """

    def __init__(self, program: Program, session: Session, checker: InputChecker) -> None:
        self.program = program
        self.session = session
        self._checker = checker
        self._single = isinstance(program.outputs, Ref)
        self._count = len(program.parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Args:
            args: the model's positional arguments; tensors with the dtypes of the captured inputs, of any sizes within
                the ranges that were given for its dynamic dimensions.
            kwargs: the model's keyword arguments.

        Returns:
            What the model returns, in memory of its own; an output class of its own becomes a dictionary.

        Raises:
            GuardError: if an input does not fit, or a run-time assertion of the model fails.
        """
        if kwargs or len(args) != self._count:
            args = self.bind(*args, **kwargs)
        try:
            results = self.session(*args)
        except TypeError:
            results = self.session(*self.bind(*args, **kwargs))
        return results[0] if self._single else map_tree(self.program.outputs, lambda leaf: results[leaf.node])

    def bind(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The arguments of a call as the session takes them, one for each parameter of the program.

        Raises:
            GuardError: if arguments are missing, unknown or too many.
        """
        return tuple(self._checker.bind(args, kwargs))


def fallback_operators(program: Program) -> dict[str, int]:
    """How often each operator runs on ATen."""
    found: dict[str, int] = {}
    for graph in program.fallbacks:
        for node in graph.nodes:
            if node.op not in ("input", "constant"):
                found[node.op] = found.get(node.op, 0) + 1
    return found
