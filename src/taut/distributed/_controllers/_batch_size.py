"""Small batches in the critical first phase of a training, large ones from then on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from taut.distributed._controllers._arguments import as_names, check_count, check_share
from taut.distributed._controllers._epoch_sums import Average, EpochSums, check_state, critical
from taut.errors import ArgumentError


class BatchSize(NamedTuple):
    """What an epoch is to use.

    Attributes:
        size: of a batch.
        learning_rate: scaled with the size.
    """

    size: int
    learning_rate: float


class AccordionBatchSize:
    """Goes from small to large batches where the norm of all gradients, summed over an epoch, no longer changes fast.

    One decision for all parameters, which is never taken back; the learning rate grows with the batch.

    Source: Accordion: Adaptive Gradient Communication via Critical Learning Regime Identification (MLSys 2021).

    Args:
        names: of the parameters whose gradients count.
        small: batch at first.
        large: batch outside of critical phases.
        threshold: relative change from which on a phase is critical.
        switch_every: epochs between comparisons.
        average: replaces a tensor by its mean over ranks; then norms are means over ranks.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(
        self,
        names: Iterable[str],
        small: int,
        large: int,
        *,
        threshold: float = 0.5,
        switch_every: int = 10,
        average: Average | None = None,
    ) -> None:
        check_count("small", small, least=1)
        if large < small:
            raise ArgumentError("large", large, expected=f"{small} (the small batch) or more")
        check_count("switch_every", switch_every, least=1)
        check_share("threshold", threshold)
        self._small, self._large = small, large
        self._threshold, self._switch_every, self._average = threshold, switch_every, average
        self._sums = EpochSums(as_names(names))
        self._norm, self._size, self._epoch = 0.0, small, -1

    def observe(self, name: str, gradient: torch.Tensor) -> None:
        """Add a raw gradient of this rank, the mean over its share of the batch, to the epoch's sum."""
        self._sums.add(name, gradient)

    def decide(self, epoch: int, learning_rate: float) -> BatchSize:
        """What this epoch is to use.

        Args:
            epoch: counted from 0.
            learning_rate: for the small batch.
        """
        if epoch != self._epoch:
            norm = math.hypot(*self._sums.norms(self._average).values())
            if self._epoch >= 0 and self._epoch % self._switch_every == 0:
                if not critical(self._norm, norm, self._threshold):
                    self._size = self._large
                self._norm = norm
            self._epoch = epoch
        return BatchSize(self._size, learning_rate * self._size / self._small)

    def state_dict(self) -> dict[str, Any]:
        """Sums of the epoch so far, the norm and the size."""
        return {"sums": self._sums.state_dict(), "norm": self._norm, "size": self._size, "epoch": self._epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up from a checkpoint.

        Raises:
            ArtefactError: it is no such state, or one of other parameters.
        """
        check_state(state, self.state_dict())
        self._sums.load_state_dict(state["sums"])
        self._norm, self._size, self._epoch = float(state["norm"]), int(state["size"]), int(state["epoch"])
