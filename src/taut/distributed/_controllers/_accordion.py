"""Mild compression in critical phases of a training, hard compression elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from taut.distributed._controllers._arguments import as_names, check_count, check_levels, check_share
from taut.distributed._controllers._epoch_sums import Average, EpochSums, check_names, check_state, critical


class Accordion:
    """Compresses a parameter mildly while the norm of its gradients, summed over an epoch, changes fast.

    Every `switch_every` epochs the norm D of the epoch that has ended is compared with D of that many epochs before:
    |D_before - D| / D_before >= `threshold` is critical and gives the low level, so does D_before = 0, and the other
    parameters get the high level. The first epoch is critical, and the learning rate's decay makes all of them so.
    Sums are of raw gradients of one rank, before error feedback and compression, so that levels do not disturb them.

    Source: Accordion: Adaptive Gradient Communication via Critical Learning Regime Identification (MLSys 2021).

    Args:
        names: of the parameters to decide on.
        threshold: relative change from which on a phase is critical.
        switch_every: epochs between comparisons; the learning rate is watched at each.
        low: level in critical phases.
        high: level elsewhere.
        decay: the learning rate decays where it falls below this share of the last epoch's; smooth schedules, which
            fall a little at every epoch, have no decay.
        average: replaces a tensor by its mean over ranks; then norms are means over ranks, and all ranks have to call
            `decide`.

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(
        self,
        names: Iterable[str],
        *,
        threshold: float = 0.5,
        switch_every: int = 10,
        low: int = 0,
        high: int = 1,
        decay: float = 0.9,
        average: Average | None = None,
    ) -> None:
        self._names = as_names(names)
        check_levels(low=low, high=high)
        check_count("switch_every", switch_every, least=1)
        check_share("threshold", threshold)
        check_share("decay", decay)
        self._threshold, self._switch_every, self._decay = threshold, switch_every, decay
        self._low, self._high, self._average = low, high, average
        self._sums = EpochSums(self._names)
        self._norms: dict[str, float] = {}
        self._levels = dict.fromkeys(self._names, low)
        self._epoch, self._learning_rate = -1, 0.0

    def observe(self, name: str, gradient: torch.Tensor) -> None:
        """Add a raw gradient of this rank to the epoch's sum."""
        self._sums.add(name, gradient)

    def decide(self, epoch: int, learning_rate: float) -> Mapping[str, int]:
        """The level of each parameter from this epoch on; asked again for one epoch, the same levels."""
        if epoch == self._epoch:
            return dict(self._levels)
        norms = self._sums.norms(self._average)
        ended = self._epoch
        if ended >= 0 and ended % self._switch_every == 0:
            self._levels = {
                name: self._low if critical(self._norms.get(name, 0.0), norm, self._threshold) else self._high
                for name, norm in norms.items()
            }
            self._norms = norms
        if ended < 0 or learning_rate < self._decay * self._learning_rate:
            self._levels = dict.fromkeys(self._names, self._low)
        self._epoch, self._learning_rate = epoch, learning_rate
        return dict(self._levels)

    def state_dict(self) -> dict[str, Any]:
        """Sums of the epoch so far, norms and levels."""
        return {
            "sums": self._sums.state_dict(),
            "norms": dict(self._norms),
            "levels": dict(self._levels),
            "epoch": self._epoch,
            "learning_rate": self._learning_rate,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up from a checkpoint.

        Raises:
            ArtefactError: it is no such state, or one of other parameters.
        """
        check_state(state, self.state_dict())
        check_names(state["levels"], self._names)
        self._sums.load_state_dict(state["sums"])
        self._norms, self._levels = dict(state["norms"]), self._levels | state["levels"]
        self._epoch, self._learning_rate = int(state["epoch"]), float(state["learning_rate"])
