"""The exchange of a job's gradients: which compressor each parameter has now, its memory, and the count of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory
from taut.distributed._controller import Controller
from taut.distributed._traffic import Message
from taut.errors import ArgumentError, CommunicationError


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an exchange has sent so far.

    Attributes:
        steps: exchanges of all gradients.
        sent: bytes that this rank has given to the link.
        dense: bytes that an all-reduce (of shards: a reduce-scatter) of the same gradients would have given.
    """

    steps: int
    sent: float
    dense: float

    @property
    def sent_per_step(self) -> float:
        """Bytes of one step, on average."""
        return self.sent / self.steps if self.steps else 0.0

    @property
    def ratio(self) -> float:
        """Bytes sent over those of a dense all-reduce; 1 before anything was sent."""
        return self.sent / self.dense if self.dense else 1.0


class Exchange:
    """Exchanges gradients, each by the compressor of its level. With one rank it leaves them as they are.

    Args:
        names: of the parameters.
        levels: compressors, the mildest first.
        controller: chooses the level of each parameter; without it all stay at level 0.
        communicator: the ranks.
    """

    def __init__(
        self,
        names: Sequence[str],
        levels: Sequence[Compressor],
        controller: Controller | None,
        communicator: Communicator,
    ) -> None:
        self.compressors = tuple(levels)
        self.controller = controller
        self.communicator = communicator
        self.levels = dict.fromkeys(names, 0)
        self.memory: Memory = {}
        self.steps = 0
        self.dense = 0.0

    def __call__(self, gradients: Sequence[Gradient]) -> None:
        """Replace gradients by what the ranks make of them, level by level."""
        if self.controller is not None:
            for gradient in gradients:
                self.controller.observe(gradient.name, gradient.tensor)
        if self.communicator.size == 1:
            return
        for level, compressor in enumerate(self.compressors):
            chosen = [gradient for gradient in gradients if self.levels[gradient.name] == level]
            if chosen:
                self._count_dense(chosen)
                compressor.exchange(chosen, self.communicator, self.memory)

    def scatter(self, gradient: Gradient) -> torch.Tensor:
        """This rank's shard of what the ranks make of the gradient of a group of sharded parameters."""
        if self.controller is not None:
            self.controller.observe(gradient.name, gradient.tensor)
        size = gradient.tensor.numel() * gradient.tensor.element_size()
        self.dense += Message("all_to_all", size).sent(self.communicator.size)  # what a reduce-scatter sends
        return self.compressors[self.levels[gradient.name]].scatter(gradient, self.communicator, self.memory)

    def _count_dense(self, gradients: Sequence[Gradient]) -> None:
        """Add what an all-reduce of these gradients would have sent."""
        size = sum(gradient.tensor.numel() * gradient.tensor.element_size() for gradient in gradients)
        self.dense += Message("all_reduce", size).sent(self.communicator.size)

    @property
    def statistics(self) -> Statistics:
        """What was sent so far."""
        return Statistics(self.steps, self.communicator.sent, self.dense)

    def start_epoch(self, epoch: int, learning_rate: float) -> None:
        """Let the controller of rank 0 decide; every rank calls it.

        Raises:
            ArgumentError: its decision names an unknown parameter or level.
            CommunicationError: rank 0 could not decide.
        """
        if self.controller is None:
            return
        failure: Exception | None = None
        decided: Mapping[str, int] = {}
        try:
            # The others decide too, so that their controllers go through the same epochs; rank 0's decision counts.
            decided = self.controller.decide(epoch, learning_rate)
            if self.communicator.rank == 0:
                self._check(decided)
        except Exception as error:
            failure = error
        told = torch.zeros(len(self.levels) + 1, dtype=torch.int64)
        if failure is not None:
            told[-1] = 1
        elif self.communicator.rank == 0:
            told[:-1] = torch.tensor([decided.get(name, level) for name, level in self.levels.items()])
        sent = self.communicator.sent
        self.communicator.all_reduce(told)
        self.communicator.sent = sent
        if failure is not None:
            raise failure
        if told[-1]:
            raise CommunicationError("another rank's controller could not decide on the levels of this epoch")
        self.levels = dict(zip(self.levels, told[:-1].tolist(), strict=True))

    def _check(self, decided: Mapping[str, int]) -> None:
        for name, level in decided.items():
            if name not in self.levels:
                raise ArgumentError("controller", name, expected="a decision on parameters of the module only")
            if level not in range(len(self.compressors)):
                last = len(self.compressors) - 1
                raise ArgumentError(
                    "controller", level, expected=f"a level between 0 and {last}, as many as there are compressors"
                )
