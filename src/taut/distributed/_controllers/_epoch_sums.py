"""Sums of gradients over an epoch, and how their norms change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch

from taut.errors import ArtefactError

Average: TypeAlias = Callable[[torch.Tensor], None]
"""Replaces a tensor by its mean over ranks."""


class EpochSums:
    """The sum of each parameter's gradients since the last call of `norms`, in float32 or wider.

    Args:
        names: of parameters.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names, self._known = names, frozenset(names)
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, gradient: torch.Tensor) -> None:
        """Add one gradient; other names are passed over."""
        if name in self._sums:
            self._sums[name].add_(gradient)
        elif name in self._known:
            wide = torch.promote_types(gradient.dtype, torch.float32)
            self._sums[name] = gradient.detach().to(wide, copy=True)

    def norms(self, average: Average | None = None) -> dict[str, float]:
        """The Euclidean norm of each sum, 0 where nothing was added; sums begin anew."""
        found = torch.zeros(len(self._names), dtype=torch.float64)
        for index, name in enumerate(self._names):
            if name in self._sums:
                found[index] = torch.linalg.vector_norm(self._sums[name], dtype=torch.float64)
        self._sums.clear()
        if average is not None:
            average(found)
        return dict(zip(self._names, found.tolist(), strict=True))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The sums by name."""
        return {name: value.clone() for name, value in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up the sums of a checkpoint.

        Raises:
            ArtefactError: a name is not known here.
        """
        check_names(state, self._names)
        self._sums = {name: value.clone() for name, value in state.items()}


def critical(before: float, now: float, threshold: float) -> bool:
    """Whether a norm has changed by that share, or from 0, or is not finite."""
    return not (before > 0 and abs(before - now) / before < threshold)


def check_state(state: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuse what is no state of a controller of this kind.

    Raises:
        ArtefactError: it is none.
    """
    if not isinstance(state, Mapping) or not set(keys) <= state.keys():
        raise ArtefactError(
            "this is no state of such a controller",
            expected=f"what its state_dict() gave, with {', '.join(keys)}",
            fix="resume with the controller that the checkpoint was written with",
        )


def check_names(state: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Refuse the state of other parameters.

    Raises:
        ArtefactError: a name is not known here.
    """
    unknown = sorted(set(state) - set(names))
    if unknown:
        raise ArtefactError(
            f"the controller's state is of parameters that this one does not have, such as {unknown[0]!r}",
            expected=f"parameters among {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
            fix="resume with the model that the checkpoint was written with",
        )
