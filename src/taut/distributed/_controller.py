"""What decides on the level of compression while the training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch


class Controller(Protocol):
    """Chooses a level for each parameter; level 0 compresses least.

    Rank 0 decides, and its decision goes to all ranks.
    """

    def observe(self, name: str, gradient: torch.Tensor) -> None:
        """Take note of a raw gradient of this rank, before error feedback, compression and reduction."""
        ...

    def decide(self, epoch: int, learning_rate: float) -> Mapping[str, int]:
        """The level of each parameter from this epoch on, called at its start; a missing name keeps its level.

        Args:
            epoch: counted from 0.
            learning_rate: that the epoch will use.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: tensors, numbers, strings, lists and dictionaries of them."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up from a checkpoint."""
        ...
