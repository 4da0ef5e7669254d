"""The strategy: random small graphs with inputs and the tolerance of each output."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import fuzz_control as control
import fuzz_layers as layers
import fuzz_layouts as layouts
import fuzz_pointwise as pointwise
import hypothesis.strategies as st
import torch
from fuzz_draft import Draft, Item, random_tensor

from taut.graph import Dim, Graph, ScalarType, SymbolRange, TensorType, evaluate, format_graph, symbol, validate

Operator = Callable[[Draft], Item | None]

POINTWISE: tuple[Operator, ...] = (
    pointwise.unary,
    pointwise.binary,
    pointwise.binary,
    pointwise.integer_unary,
    pointwise.compare,
    pointwise.logical,
    pointwise.choice,
    pointwise.convert,
)
ROWS: tuple[Operator, ...] = (pointwise.reduction, pointwise.normalisation)
LAYOUTS: tuple[Operator, ...] = (
    layouts.reshape,
    layouts.reshape,
    layouts.reorder,
    layouts.reorder,
    layouts.widen,
    layouts.part,
    layouts.parts,
    layouts.join,
    layouts.pad,
    layouts.filled,
)
LAYERS: tuple[Operator, ...] = (
    layers.linear,
    layers.residual,
    layers.matmul,
    layers.attention,
    layers.convolution,
    layers.pool,
    layers.embedding,
)
OTHERS: tuple[Operator, ...] = (control.branch, control.loop, control.nonzero, pointwise.elsewhere)
GROUPS = (POINTWISE, POINTWISE, ROWS, LAYOUTS, LAYOUTS, LAYERS, LAYERS, OTHERS)


@dataclasses.dataclass(frozen=True)
class Case:
    """A graph to compile.

    Attributes:
        graph: the graph.
        tolerances: of each output tensor, None for a number.
        sizes: values of the symbols to try.
    """

    graph: Graph
    tolerances: tuple[float | None, ...]
    sizes: tuple[Mapping[str, int], ...]

    def __repr__(self) -> str:
        return f"{format_graph(self.graph)}\n{self.sizes}, within {self.tolerances}"

    def inputs(self, sizes: Mapping[str, int], seed: int = 0) -> list[torch.Tensor]:
        """Random inputs of the sizes, numbers between the steps of a grid among them."""
        generator = torch.Generator().manual_seed(seed)
        found = []
        for node in self.graph.inputs:
            kind = self.graph.nodes[node].outputs[0]
            assert isinstance(kind, TensorType)
            shape = [evaluate(size, sizes) for size in kind.shape]
            coarse = str(self.graph.nodes[node].args[0]) in ("x0", "x2")
            found.append(random_tensor(shape, kind.dtype, generator, coarse)[0])
        return found


@st.composite
def graphs(draw: st.DrawFn, largest: int = 8) -> Case:
    """Graphs of up to so many operations."""
    symbols = {
        "s0": SymbolRange(draw(st.sampled_from((0, 1, 2))), 8),
        "s1": SymbolRange(draw(st.sampled_from((2, 0, 1))), 5),
    }
    draft = Draft(draw, symbols)
    sizes: list[Dim] = [4, symbol("s0"), 8, 3, symbol("s1"), 2, 4, 1, symbol("s0"), 6, 4, 8, 0]
    space = [draft.choose(sizes) for _ in range(4)]
    none, dtypes = (
        torch.Generator(),
        (torch.float32, torch.float32, torch.float32, torch.int64, torch.int32, torch.bool),
    )
    for position in range(draft.integer(1, 4)):
        dtype = torch.float32 if position == 0 else draft.choose(dtypes)
        coarse = position in (0, 2)
        rank = draft.choose((3, 2, 4, 1, 0))
        shape = [1 if draft.choose((False, False, False, True)) else size for size in space[len(space) - rank :]]
        draft.input(shape, dtype, random_tensor((), dtype, none, coarse)[1])
    if draft.chance():
        shape = [size for size in space[2:] if isinstance(size, int)]
        draft.items.insert(0, draft.constant(shape))
    wanted = draft.integer(1, largest)
    for _ in range(3 * largest):
        wanted -= draft.choose(draft.choose(GROUPS))(draft) is not None
        if wanted == 0:
            break
    outputs = [draft.items[-1], *(draft.choose(draft.items) for _ in range(draft.integer(0, 2)))]
    if draft.choose((True, True, False)):
        outputs += [item for item in draft.items if item.ref not in draft.used][-3:]
    tree: list[object] = [item.ref for item in outputs]
    tolerances: list[float | None] = [item.fact.tolerance for item in outputs]
    used = [size for item in draft.inputs for size in item.shape if not isinstance(size, int)]
    if used and draft.choose((False, False, False, True)):
        tree.append(draft.size(used[0] * 2))
        tolerances.append(None)
    single = len(tree) == 1 and draft.chance()
    known = {name: limits for name, limits in draft.symbols.items() if not limits.backed or symbol(name) in used}
    graph = draft.builder.finish(tree[0] if single else tuple(tree), symbols=known)
    live = {str(free) for node in graph.nodes for kind in node.outputs for free in _symbols(kind)}
    graph = dataclasses.replace(graph, symbols={name: known[name] for name in known if name in live})
    validate(graph)
    backed = {name: limits for name, limits in graph.symbols.items() if limits.backed}
    corners = [{name: limits.lower for name, limits in backed.items()}]
    if backed:
        corners.append({name: limits.upper or 0 for name, limits in backed.items()})
        corners.append({name: draft.integer(limits.lower, limits.upper or 0) for name, limits in backed.items()})
    return Case(graph, tuple(tolerances), tuple(corners))


def _symbols(kind: object) -> set:
    if isinstance(kind, TensorType):
        return {free for size in kind.shape if not isinstance(size, int) for free in size.free_symbols}
    return set(kind.expression.free_symbols) if isinstance(kind, ScalarType) and kind.expression is not None else set()


def differences(found: list, wanted: list, tolerances: tuple[float | None, ...]) -> list[str]:
    """What is wrong with the results."""
    wrong = []
    for position, (a, b, tolerance) in enumerate(zip(found, wanted, tolerances, strict=True)):
        if tolerance is None:
            wrong += [] if a == b and type(a) is int else [f"output {position}: {a!r} instead of {b!r}"]
        elif a.shape != b.shape or a.dtype != b.dtype:
            wrong.append(f"output {position}: {a.dtype} {tuple(a.shape)} instead of {b.dtype} {tuple(b.shape)}")
        elif not torch.allclose(a.double(), b.double(), rtol=0.0, atol=tolerance, equal_nan=True):
            distance = (a.double() - b.double()).abs().nan_to_num(math.inf).max().item()
            wrong.append(f"output {position}: differs by {distance:.3g}, more than {tolerance:.3g}")
    return wrong
