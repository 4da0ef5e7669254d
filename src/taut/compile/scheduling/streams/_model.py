"""A model whose operators run on streams, captured once for each set of sizes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from taut.compile.interop import Schedule, validate
from taut.compile.scheduling._report import ScheduleReport
from taut.compile.scheduling.streams._cuda import streams_of
from taut.compile.scheduling.streams._execute import Executor
from taut.compile.scheduling.streams._operators import StreamOperators, stream_operators
from taut.compile.scheduling.streams._program import (
    MOST_STREAMS,
    StreamProgram,
    check_streams,
    sequential_stages,
    staged_program,
)
from taut.compile.scheduling.streams._streams import Streams
from taut.compile.scheduling.streams._verify import verify_program
from taut.errors import GuardError, ScheduleError
from taut.graph import Graph, InputChecker, Ref, map_tree

_MOST_CAPTURES = 8


class StreamedModel:
    """A graph on streams of a device, called like the model; each set of sizes is captured at its first call.

    A call copies its inputs into buffers of the capture, replays it, and returns copies of the results. Calls from
    several threads and streams take turns. There are no gradients. The eight sets of sizes used last stay captured.

    Args:
        graph: as it was captured from the model.
        stages: of `stream_operators(graph).graph`, or a program of it; by default one operator after the other.
        device: where to run: "cpu" runs in order, without streams.
        streams: at most, for stages.

    Attributes:
        graph: the graph.
        operators: what the streams run.
        program: what is issued to them.
        executor: issues it.
        device: where it runs.
        schedule: how it was found, if by `schedule_streams`.

    Raises:
        ScheduleError: the stages do not fit the graph, or the program lets something run too early.
        GraphError: the graph cannot be captured.
        ArgumentError: there is no such device, or `streams` is out of range.

    Source: Ding et al., "IOS: Inter-Operator Scheduler for CNN Acceleration" (MLSys 2021), whose stages these are.
    """

    def __init__(
        self,
        graph: Graph,
        stages: Schedule | StreamProgram | None = None,
        *,
        device: torch.device | str | Streams = "cpu",
        streams: int = MOST_STREAMS,
    ) -> None:
        check_streams(streams)
        operators = stream_operators(graph)
        self.graph = graph
        self.operators = operators
        self.program = _program_of(operators, stages, streams)
        self.schedule: ScheduleReport | None = None
        self._streams = streams_of(device) if isinstance(device, (str, torch.device)) else device
        self.device = self._streams.device
        self.executor = Executor(operators, self._streams)
        self._checker = InputChecker(graph)
        self._captures: OrderedDict[tuple[Any, ...], tuple[list[Any], Callable[[], list[Any]]]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Args:
            args: the model's positional arguments, tensors on the device with the dtypes and, but for dynamic
                dimensions, the shapes of the captured ones.
            kwargs: the model's keyword arguments.

        Returns:
            What the model returns, in memory of its own; an output class of its own becomes a dictionary.

        Raises:
            GuardError: an input does not fit.
            GraphError: an operator fails, or cannot be captured.
        """
        inputs = self._bound(args, kwargs)
        with self._lock, torch.no_grad():
            buffers, replay = self._captured(inputs)
            with self._streams.call():
                _fill(buffers, inputs)
                leaves = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in replay()]
        following = iter(leaves)
        tree = self.graph.outputs
        return leaves[0] if isinstance(tree, Ref) else map_tree(tree, lambda _: next(following))

    def replayer(self, *args: Any, **kwargs: Any) -> Callable[[], object]:
        """Replays the call with these arguments without copying anything, for measuring.

        Args:
            args: as for a call.
            kwargs: as for a call.
        """
        inputs = self._bound(args, kwargs)
        with self._lock, torch.no_grad():
            buffers, replay = self._captured(inputs)
            with self._streams.call():
                _fill(buffers, inputs)
        return replay

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        inputs = self._checker.bind(args, kwargs)
        self._checker.check(inputs)
        for name, value in zip(self._checker.names, inputs, strict=True):
            if isinstance(value, torch.Tensor) and value.device != self.device:
                raise GuardError(f"input {name} is on {value.device}", expected=f"{self.device}", fix=f"{name}.to(...)")
        return inputs

    def _captured(self, inputs: Sequence[Any]) -> tuple[list[Any], Callable[[], list[Any]]]:
        """The buffers and the replay for sizes like those of the inputs."""
        key = tuple(tuple(value.shape) if isinstance(value, torch.Tensor) else value for value in inputs)
        if key in self._captures:
            self._captures.move_to_end(key)
            return self._captures[key]
        buffers = _buffers_like(inputs)
        executor, program = self.executor, self.program

        def issue() -> list[Any]:
            return executor.results(executor.issue(program, executor.values(buffers)))

        made = self._captures[key] = buffers, self._streams.capture(issue)
        if len(self._captures) > _MOST_CAPTURES:
            self._captures.popitem(last=False)  # which does not run any more: a capture waits for the device
        return made


def _program_of(operators: StreamOperators, stages: Schedule | StreamProgram | None, streams: int) -> StreamProgram:
    """The verified program of stages, or of one operator after the other."""
    graph, returned = operators.graph, operators.returned
    if isinstance(stages, StreamProgram):
        program = stages
    else:
        if stages is not None:
            validate(graph, stages)
            merged = next((s for s in stages.stages if s.strategy == "merge" and len(s.groups) > 1), None)
            if merged is not None:
                names = ", ".join(graph.operators[number].name for number in merged.operators)
                raise ScheduleError(
                    f"{names} are to run as one",
                    expected="stages of a graph in which they are one",
                    fix="rewrite the graph with merge_convolutions before",
                )
        program = staged_program(graph, sequential_stages(graph) if stages is None else stages, returned, streams)
    verify_program(graph, program, returned)
    return program


def _buffers_like(inputs: Sequence[Any]) -> list[Any]:
    """Copies of inputs that a capture reads, apart from them; numbers as they are.

    Calls outside of inference mode write them too, though the first may be inside.
    """
    with torch.inference_mode(mode=False):
        return [value.detach().clone() if isinstance(value, torch.Tensor) else value for value in inputs]


def _fill(buffers: Sequence[Any], inputs: Sequence[Any]) -> None:
    for buffer, value in zip(buffers, inputs, strict=True):
        if isinstance(buffer, torch.Tensor):
            buffer.copy_(value)
