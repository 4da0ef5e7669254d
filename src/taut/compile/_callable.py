"""A program called like the model that it was compiled from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taut.graph import InputChecker, Ref, Tree
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
        return results[0] if self._single else _fill(self.program.outputs, results)

    def bind(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The arguments of a call as the session takes them, one for each parameter of the program.

        Raises:
            GuardError: if arguments are missing, unknown or too many.
        """
        return tuple(self._checker.bind(args, kwargs))


def _fill(tree: Tree, leaves: list[Any]) -> Any:
    """The structure with each position replaced by the value there."""
    if isinstance(tree, Ref):
        return leaves[tree.node]
    if isinstance(tree, tuple):
        return tuple(_fill(item, leaves) for item in tree)
    if isinstance(tree, list):
        return [_fill(item, leaves) for item in tree]
    if isinstance(tree, Mapping):
        return {key: _fill(item, leaves) for key, item in tree.items()}
    return tree
