"""What `attach` returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from taut.distributed import _state
from taut.distributed._compressor import Memory
from taut.distributed._exchange import Exchange, Statistics
from taut.distributed._ordered import Job, OrderedThread
from taut.errors import CommunicationError, TautError


class Handle:
    """The gradient exchange of one module; it lasts as long as the module.

    Args:
        exchange: of the gradients.
        shapes: of what is exchanged, by name.
    """

    def __init__(self, exchange: Exchange, shapes: Mapping[str, torch.Size]) -> None:
        self.exchange = exchange
        self._shapes = dict(shapes)
        self._thread = OrderedThread("taut gradient exchange")
        self._stream: torch.cuda.Stream | None = None

    @property
    def statistics(self) -> Statistics:
        """Steps and bytes so far."""
        return self.exchange.statistics

    @property
    def memory(self) -> Memory:
        """What is kept from step to step, by the name of the parameter; to be read between steps."""
        return self.exchange.memory

    @property
    def levels(self) -> dict[str, int]:
        """The level of each parameter: the place of its compressor in the sequence that was given."""
        return dict(self.exchange.levels)

    def start_epoch(self, epoch: int, learning_rate: float) -> dict[str, int]:
        """Let the controller choose the levels of an epoch; called on every rank at its start.

        Args:
            epoch: counted from 0.
            learning_rate: that the epoch will use.

        Returns:
            The level of each parameter, as rank 0 has decided.

        Raises:
            TautError: the controller's decision does not fit, on this rank or on another.
            CommunicationError: the other ranks cannot be reached.
        """
        wait(self._thread.submit(lambda: self.exchange.start_epoch(epoch, learning_rate)))
        return self.levels

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly; each rank saves its own.

        Returns:
            Tensors, numbers, strings and dictionaries of them; `torch.save` writes it, `torch.load` reads it with
            `weights_only=True`.
        """
        return _state.save(self.exchange)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; nothing is changed if it does not fit.

        Args:
            state: of the same rank of a job of the same size, or what `average_states` made of those of all ranks.

        Raises:
            ArtefactError: it is no such state, or one of other parameters or levels.
            ArgumentError: it is that of another rank, or of a job of another size.
        """
        _state.load(self.exchange, state, self._shapes)

    def submit(
        self, work: Callable[[], object], device: torch.device, finish: Callable[[], object] = lambda: None
    ) -> Job:
        """Let the ordered thread work on tensors that the current stream of a device is writing.

        Args:
            work: what to do.
            device: of the tensors.
            finish: called once the device has done the work, or the work has failed.
        """
        ready = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

        def run() -> None:
            if ready is None:
                work()
            else:
                self._stream = stream = self._stream or torch.cuda.Stream(device)
                with torch.cuda.stream(stream):
                    ready.wait()
                    work()
                stream.synchronize()

        return self._thread.submit(run, finish)


def wait(job: Job) -> None:
    """Wait for a job of the exchange.

    Raises:
        TautError: what the job raised; CommunicationError for what torch.distributed raised.
    """
    try:
        job.wait()
    except TautError:
        raise
    except RuntimeError as error:
        raise CommunicationError(
            f"the exchange of gradients failed: {error}",
            fix="see the other ranks for the first failure, and start the job again from its checkpoint",
        ) from error
