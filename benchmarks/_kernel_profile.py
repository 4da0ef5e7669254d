"""Where the time of a compiled model goes, kernel by kernel, as a share of this host's multiply-add peak."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from torch import Tensor

from taut.codegen import Recipe
from taut.compile import CompiledModel
from taut.compile._block import KernelStep
from taut.graph import bind_sizes, evaluate, operation_cost
from taut.kernels import measure_peaks
from taut.runtime import Opcode


@dataclasses.dataclass
class KernelTime:
    """All calls of the main function's kernels of one kind on equal work.

    Attributes:
        kind: the template of a generated kernel, or the name of a prebuilt one.
        label: where the first comes from in the model.
        calls: how many there are.
        seconds: of all of them, each the median of the profiled runs.
        macs: multiply-accumulates of each.
    """

    kind: str
    label: str
    calls: int
    seconds: float
    macs: int

    def share(self, peak: float) -> float:
        """Arithmetic rate by the peak, in operations per second."""
        return 2 * self.macs * self.calls / self.seconds / peak


def profile_kernels(model: CompiledModel, inputs: tuple[Tensor, ...], runs: int = 60) -> tuple[list[KernelTime], float]:
    """The kernels, dearest first, and the seconds of all instructions that call none."""
    samples: dict[tuple[int, int], list[int]] = {}
    for _ in range(runs):
        for entry in model.session.profile(*inputs):
            samples.setdefault((entry.function, entry.instruction), []).append(entry.nanoseconds)
    seconds = {where: float(np.median(taken)) * 1e-9 for where, taken in samples.items()}
    program, graph = model.lowered.program, model.graph
    sizes = bind_sizes(graph, *inputs)
    nodes = {node.id: node for node in graph.nodes}
    steps = [step for step in model.lowered.blocks[0].steps if isinstance(step, KernelStep)]
    places = [n for n, words in enumerate(program.functions[0].instructions) if words[0] == Opcode.KERNEL]
    found: dict[tuple[int, int], KernelTime] = {}
    for step, place in zip(steps, places, strict=True):
        macs = sum(evaluate(operation_cost(graph, nodes[node]).macs, sizes) for node in step.nodes)
        kind = step.kernel.template if isinstance(step.kernel, Recipe) else step.kernel
        key = program.functions[0].instructions[place][1], macs
        group = found.setdefault(key, KernelTime(kind, step.label, 0, 0.0, macs))
        group.calls += 1
        group.seconds += seconds.pop((0, place), 0.0)
    return sorted(found.values(), key=lambda each: -each.seconds), sum(seconds.values())


def print_profile(name: str, model: CompiledModel, inputs: tuple[Tensor, ...], most: int = 16) -> list[dict[str, Any]]:
    """Print the dearest kernels and return their figures."""
    kernels, rest = profile_kernels(model, inputs)
    peak = measure_peaks(1)["fp32"]
    total = sum(kernel.seconds for kernel in kernels) + rest
    outside = f"{1e6 * rest:.1f} us outside kernels"
    print(f"{name}: {1e6 * total:.1f} us by instruction, {outside}; peak {peak / 1e9:.0f} GFLOP/s")
    for kernel in kernels[:most]:
        share = f"{100 * kernel.share(peak):5.1f} % of peak" if kernel.macs else "        -      "
        print(
            f"  {1e6 * kernel.seconds:9.2f} us {100 * kernel.seconds / total:5.1f} %  {kernel.calls:3d} x"
            f" {1e6 * kernel.seconds / kernel.calls:8.2f}  {share}  {kernel.kind:12s} {kernel.label}",
            flush=True,
        )
    return [
        {"case": name, **dataclasses.asdict(kernel), "share_of_peak": kernel.share(peak), "peak": peak}
        for kernel in kernels
    ]
