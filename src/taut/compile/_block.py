"""Straight-line code over views, before registers and memory are chosen."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import sympy

from taut.codegen import Recipe
from taut.compile._views import Buffer, View
from taut.graph import Dim, Graph, Ref


@dataclasses.dataclass(frozen=True, eq=False)
class KernelStep:
    """A call of a kernel.

    Attributes:
        kernel: a recipe, or the name of a prebuilt kernel.
        inputs: what it reads, in order.
        outputs: what it writes, after the inputs.
        label: where it comes from in the model.
        nodes: ids of the graph's nodes that it computes.
        in_place: positions of inputs that the output may overwrite, if it lies in memory just as they do.
        device: the logical device that it runs on; None where any will do.
    """

    kernel: Recipe | str
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    label: str = ""
    nodes: tuple[int, ...] = ()
    in_place: tuple[int, ...] = ()
    device: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class CopyStep:
    """Elements of one view into another of equal sizes; `device` as for a kernel."""

    source: View
    target: View
    label: str = ""
    device: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class TransferStep:
    """The whole of a buffer to another one, which is on another device and gets its memory here."""

    source: View
    target: View
    label: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class FallbackStep:
    """A graph on ATen; its results get the sizes that come out.

    Attributes:
        graph: what to run; it holds no constants.
        inputs: a tensor, or a size.
        outputs: views of "storage" buffers, contiguous once they have come out; None for a result that is a scalar.
        binds: symbols that become known: (name, output, dimension).
    """

    graph: Graph
    inputs: tuple[View | Dim, ...]
    outputs: tuple[View, ...]
    binds: tuple[tuple[str, int, int], ...] = ()
    label: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class ItemStep:
    """The value of a tensor with one element becomes that of a symbol."""

    source: View
    symbol: str
    label: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class CheckStep:
    """Stops with a message unless a relation holds."""

    condition: sympy.Basic
    message: str
    label: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class CallStep:
    """A call of another function: `cond` picks one of two, `while_loop` repeats.

    Attributes:
        kind: "cond", "while_loop" or "call".
        functions: numbers of blocks.
        predicate: of "cond": a condition over symbols, or a tensor with one element.
        inputs: arguments, tensors and sizes.
        outputs: results, contiguous "storage".
        binds: as for a fallback.
    """

    kind: str
    functions: tuple[int, ...]
    predicate: sympy.Basic | View | None
    inputs: tuple[View | Dim, ...]
    outputs: tuple[View, ...]
    binds: tuple[tuple[str, int, int], ...] = ()
    label: str = ""


Step: TypeAlias = KernelStep | CopyStep | TransferStep | FallbackStep | ItemStep | CheckStep | CallStep


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """One function before code is emitted.

    Attributes:
        name: for people.
        inputs: an input buffer's view for a tensor, a size for an integer.
        steps: in order.
        results: values to return.
        symbols: symbols that the inputs' sizes tell: (name, input, dimension); dimension -1 for an integer itself.
        values: each graph value that lies in memory, for tests and for people.
    """

    name: str
    inputs: tuple[View | Dim, ...]
    steps: tuple[Step, ...]
    results: tuple[View | Dim, ...]
    symbols: tuple[tuple[str, int, int], ...]
    values: dict[Ref, View] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Task:
    """Neighbouring steps that one worker runs in order.

    Attributes:
        steps: how many.
        worker: who should run them.
        after: numbers of earlier tasks of the region that must be done before.
    """

    steps: int
    worker: int
    after: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Region:
    """Kernels and copies of a block that several workers run.

    Attributes:
        start: the first step.
        tasks: all steps from there on, in order.
    """

    start: int
    tasks: tuple[Task, ...]

    @property
    def end(self) -> int:
        """The step after the last."""
        return self.start + sum(task.steps for task in self.tasks)


def inputs_of(step: KernelStep | CopyStep) -> tuple[View, ...]:
    """What a step reads."""
    return step.inputs if isinstance(step, KernelStep) else (step.source,)


def outputs_of(step: KernelStep | CopyStep) -> tuple[View, ...]:
    """What a step writes."""
    return step.outputs if isinstance(step, KernelStep) else (step.target,)


def buffers_of(step: Step) -> tuple[list[Buffer], list[Buffer]]:
    """The buffers that a step reads and writes."""
    match step:
        case KernelStep(inputs=inputs, outputs=outputs):
            return [view.buffer for view in inputs], [view.buffer for view in outputs]
        case CopyStep(source=source, target=target) | TransferStep(source=source, target=target):
            return [source.buffer], [target.buffer]
        case FallbackStep(inputs=inputs, outputs=outputs) | CallStep(inputs=inputs, outputs=outputs):
            read = [item.buffer for item in inputs if isinstance(item, View)]
            if isinstance(step, CallStep) and isinstance(step.predicate, View):
                read.append(step.predicate.buffer)
            return read, [view.buffer for view in outputs]
        case ItemStep(source=source):
            return [source.buffer], []
        case CheckStep():
            return [], []
