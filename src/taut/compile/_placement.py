"""Which logical device each step of a block runs on, and the transfers between them.

The host is device 0: arguments arrive there, results leave from there, and what runs on ATen, branches, loops and
sizes read from tensors belong there. Kernels and copies of pinned modules run where they are pinned. Steps that write
the same memory form one domain. Domains that nothing pins go where the fewest tensors have to be transferred, and to
the host where that makes no difference; a minimum cut between the devices finds them, which is exact for two devices.

Source: Shen et al., "Nimble" (MLSys 2021), section 4.4, for domains by union-find and inserted copies; the minimum cut
for free domains is ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from taut.compile._block import (
    Block,
    CallStep,
    CopyStep,
    FallbackStep,
    ItemStep,
    KernelStep,
    Step,
    TransferStep,
    buffers_of,
    outputs_of,
)
from taut.compile._views import Buffer, View
from taut.errors import ArgumentError, GraphError
from taut.graph import Dim, Graph
from taut.runtime import DEVICE_COUNT

HOST = 0
_OTHER = 1


def pinned_nodes(graph: Graph, devices: Mapping[str, int], around: int | None = None) -> dict[int, int]:
    """The device of each node in a pinned module; the longest path that fits decides.

    Args:
        graph: a graph or region.
        devices: by the path of the module.
        around: the device of the branch or loop that the region is of, whose nodes may have no module.
    """
    found: dict[int, int] = {}
    for node in graph.nodes:
        paths = [path for path in devices if _inside(node.module_path, path)]
        if around is not None and not node.module_path:
            found[node.id] = around
        elif paths:
            found[node.id] = devices[max(paths, key=len)]
    return found


def check_devices(graph: Graph, devices: Mapping[str, int]) -> None:
    """Refuse devices that do not exist, and modules that the graph has nothing of.

    Raises:
        ArgumentError: either is the case.
    """
    if not isinstance(devices, Mapping) or not all(isinstance(path, str) for path in devices):
        raise ArgumentError("devices", devices, expected="logical devices by the paths of modules, e.g. {'encoder': 1}")
    present = _module_paths(graph)
    for path, device in devices.items():
        if isinstance(device, bool) or not isinstance(device, int) or not 0 <= device < DEVICE_COUNT:
            raise ArgumentError("devices", device, expected=f"a logical device from 0 to {DEVICE_COUNT - 1} for {path}")
        if not any(_inside(module, path) for module in present):
            known = ", ".join(sorted(filter(None, present))[:8]) or "none"
            raise ArgumentError(
                "devices", path, expected="the path of a module that computes something", fix=f"name one of: {known}"
            )


def place(block: Block) -> Block:
    """The block with a device for each kernel and copy, and transfers where a tensor is needed elsewhere.

    A tensor is transferred to a device once. Constants are where they are needed.

    Raises:
        GraphError: steps that write the same memory are pinned to different devices.
    """
    devices = _devices(block)
    if not any(devices.values()):
        return block
    mover = _Mover()
    for position, step in enumerate(block.steps):
        mover.step(step, devices.get(position, HOST))
    results = tuple(mover.at(item, HOST) if isinstance(item, View) else item for item in block.results)
    return dataclasses.replace(block, steps=tuple(mover.steps), results=results)


def _inside(module: str, path: str) -> bool:
    return not path or module == path or module.startswith(f"{path}.")


def _module_paths(graph: Graph) -> set[str]:
    nodes = [node for node in graph.nodes if node.op not in ("input", "constant")]
    return {node.module_path for node in nodes}.union(
        *(_module_paths(region) for node in nodes for region in node.regions)
    )


def _devices(block: Block) -> dict[int, int]:
    """The device of each kernel and copy, by position."""
    domains = _domains(block)
    pins: dict[int, int] = {}
    for position, domain in domains.items():
        step = block.steps[position]
        pin = step.device if isinstance(step, KernelStep | CopyStep) else None
        if pin is not None and pins.setdefault(domain, pin) != pin:
            raise GraphError(f"steps that write one tensor of {step.label} are pinned to different devices")
    if not any(pins.values()):
        return {}
    elsewhere = _cut(_values(block, domains), pins)
    return {position: _OTHER if domain in elsewhere else HOST for position, domain in domains.items()}


def _domains(block: Block) -> dict[int, int]:
    """For each kernel and copy the first step of its domain: those that write the same memory."""
    parent: dict[int, int] = {}
    first: dict[Buffer, int] = {}

    def find(position: int) -> int:
        while parent[position] != position:
            parent[position] = position = parent[parent[position]]
        return position

    for position, step in enumerate(block.steps):
        if isinstance(step, KernelStep | CopyStep):
            parent[position] = position
            for view in outputs_of(step):
                a, b = find(first.setdefault(view.buffer, position)), find(position)
                parent[max(a, b)] = min(a, b)
    return {position: find(position) for position in parent}


@dataclasses.dataclass
class _Value:
    """A tensor: the domain that makes it and those that read it; None is the host."""

    maker: int | None
    readers: set[int | None]


def _values(block: Block, domains: Mapping[int, int]) -> list[_Value]:
    found: dict[Buffer, _Value] = {}

    def value(buffer: Buffer) -> _Value:
        return found.setdefault(buffer, _Value(None, set()))

    for position, step in enumerate(block.steps):
        read, written = buffers_of(step)
        for buffer in written:
            value(buffer).maker = domains.get(position)
        for buffer in read:
            if buffer.kind != "constant":
                value(buffer).readers.add(domains.get(position))
    for item in block.results:
        if isinstance(item, View) and item.buffer.kind != "constant":
            value(item.buffer).readers.add(None)
    return list(found.values())


def _cut(values: Sequence[_Value], pins: Mapping[int, int]) -> set[int]:
    """The domains off the host such that fewest tensors are transferred.

    A tensor costs one transfer if a reader is on the other device than its maker. Both cases are edges of capacity 1
    through a vertex of their own, which each reader ties to its side.
    """
    host, other = 0, 1
    vertices: dict[object, int] = {None: host}
    edges: list[tuple[int, int, int]] = []
    unlimited = 2 * len(values) + 1

    def vertex(key: object) -> int:
        return vertices.setdefault(key, len(vertices) + 1)

    for domain, device in pins.items():
        edges.append((host, vertex(domain), unlimited) if device == HOST else (vertex(domain), other, unlimited))
    for number, value in enumerate(values):
        readers = value.readers - {value.maker}
        if not readers:
            continue
        maker, away, back = vertex(value.maker), vertex(("away", number)), vertex(("back", number))
        edges += [(maker, away, 1), (back, maker, 1)]
        for reader in readers:
            edges += [(away, vertex(reader), unlimited), (vertex(reader), back, unlimited)]
    rows, columns, capacities = zip(*edges, strict=True)
    size = len(vertices) + 1
    capacity = csr_array((np.array(capacities, np.int32), (rows, columns)), shape=(size, size), dtype=np.int32)
    residual = csr_array(capacity - maximum_flow(capacity, host, other).flow)
    residual.eliminate_zeros()
    reaching = set(breadth_first_order(csr_array(residual.T), other, return_predecessors=False).tolist())
    return {key for key, number in vertices.items() if isinstance(key, int) and number in reaching}


class _Mover:
    """Rewrites steps for their devices, and inserts transfers."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._elsewhere: dict[tuple[Buffer, int], Buffer] = {}

    def step(self, step: Step, device: int) -> None:
        """Append a step, which runs on a device, after the transfers that it needs."""
        match step:
            case KernelStep():
                inputs = tuple(self.at(view, device) for view in step.inputs)
                self._written(step.outputs, device)
                self.steps.append(dataclasses.replace(step, inputs=inputs, device=device))
            case CopyStep():
                source = self.at(step.source, device)
                self._written((step.target,), device)
                self.steps.append(dataclasses.replace(step, source=source, device=device))
            case FallbackStep():
                self.steps.append(dataclasses.replace(step, inputs=self._at_host(step.inputs)))
            case CallStep():
                predicate = self.at(step.predicate, HOST) if isinstance(step.predicate, View) else step.predicate
                inputs = self._at_host(step.inputs)
                self.steps.append(dataclasses.replace(step, inputs=inputs, predicate=predicate))
            case ItemStep():
                self.steps.append(dataclasses.replace(step, source=self.at(step.source, HOST)))
            case _:
                self.steps.append(step)

    def at(self, view: View, device: int) -> View:
        """The view on a device."""
        buffer = view.buffer
        if buffer.device == device:
            return view
        key = (buffer, device)
        if key not in self._elsewhere:
            if buffer.kind == "constant":
                self._elsewhere[key] = dataclasses.replace(buffer, device=device)
            else:
                target = Buffer("storage", buffer.dtype, buffer.elements, name=buffer.name, device=device)
                self._elsewhere[key] = target
                whole = [View(item, (buffer.elements,), (1,)) for item in (buffer, target)]
                self.steps.append(TransferStep(*whole, label=buffer.name))
        return View(self._elsewhere[key], view.sizes, view.strides, view.offset)

    def _at_host(self, items: Sequence[View | Dim]) -> tuple[View | Dim, ...]:
        return tuple(self.at(item, HOST) if isinstance(item, View) else item for item in items)

    def _written(self, views: Sequence[View], device: int) -> None:
        for view in views:
            view.buffer.device = device
            for other in range(DEVICE_COUNT):
                self._elsewhere.pop((view.buffer, other), None)
