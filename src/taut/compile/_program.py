"""From a graph to a program: every function lowered, planned and emitted."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import sympy

from taut.codegen import Recipe
from taut.compile._block import Block, KernelStep, Region, TransferStep
from taut.compile._checks import entry_checks
from taut.compile._emit import Emitter, Tables
from taut.compile._lowering import Lowering
from taut.compile._memory import MemoryPlan, plan_memory
from taut.compile._placement import check_devices, pinned_nodes, place
from taut.compile._views import View
from taut.cost import CostModel
from taut.graph import Graph, Ref, map_tree
from taut.runtime import Parameter, Program

_TYPICAL = 48
"""What a symbol without bounds is taken for when sizes are compared."""


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A program with what it was made from.

    Attributes:
        graph: the model.
        program: what the machine runs.
        blocks: the code of each function before registers and memory were chosen.
        plans: the memory of each function.
        instructions: for each function, for each step of its block, the number of the instruction that does the work.
        hint: the values of the symbols by which sizes were compared.
        avoided: nodes that run on ATen because their kernels could not be generated.
        devices: logical devices of modules, by path.
        tiles: what chose the tiles in place of the analytic rule.
    """

    graph: Graph
    program: Program
    blocks: tuple[Block, ...]
    plans: tuple[MemoryPlan, ...]
    instructions: tuple[tuple[int, ...], ...]
    hint: Mapping[str, int]
    avoided: frozenset[tuple[str, int]] = frozenset()
    devices: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tiles: CostModel | None = None

    @property
    def transfers(self) -> int:
        """How many tensors the code transfers between logical devices."""
        return sum(isinstance(step, TransferStep) for block in self.blocks for step in block.steps)

    def recipes(self) -> dict[str, Recipe]:
        """The kernels to generate, by key."""
        found = [kernel.recipe for kernel in self.program.kernels if kernel.recipe is not None]
        return {recipe.key: recipe for recipe in found}

    def label_of(self, key: str) -> str:
        """Where the kernel with this key comes from in the model."""
        return next(
            f"{step.label} ({step.kernel.template})"
            for block in self.blocks
            for step in block.steps
            if isinstance(step, KernelStep) and isinstance(step.kernel, Recipe) and step.kernel.key == key
        )

    def nodes_of(self, keys: frozenset[str]) -> frozenset[tuple[str, int]]:
        """The nodes, with their functions, whose kernels have these keys."""
        return frozenset(
            (block.name, node)
            for block in self.blocks
            for step in block.steps
            if isinstance(step, KernelStep) and isinstance(step.kernel, Recipe) and step.kernel.key in keys
            for node in step.nodes
        )


def lower(
    graph: Graph,
    avoided: frozenset[tuple[str, int]] = frozenset(),
    devices: Mapping[str, int] = MappingProxyType({}),
    tiles: CostModel | None = None,
) -> Lowered:
    """Lower a graph.

    Args:
        graph: a captured model.
        avoided: nodes that run on ATen, with the names of their functions.
        devices: logical devices of modules, by path; what lies in none goes where least is transferred.
        tiles: chooses the tiles of kernels, as `compile_model` says.

    Raises:
        ArgumentError: a device or module does not exist.
        GraphError: the graph needs what a program cannot express.
    """
    check_devices(graph, devices)
    hint = typical_sizes(graph)
    blocks: list[Block | None] = []

    def register(region: Graph, name: str, given: tuple[str, ...], around: int | None) -> int:
        number = len(blocks)
        blocks.append(None)
        here = frozenset(node for function, node in avoided if function == name)
        pins = pinned_nodes(region, devices, around)
        blocks[number] = place(Lowering(region, name, hint, register, here, given, pins, tiles).run())
        return number

    register(graph, "main", (), None)
    finished = [block for block in blocks if block is not None]
    made = assemble(graph, finished, [plan_memory(block, hint) for block in finished], hint, avoided)
    return dataclasses.replace(made, devices=dict(devices), tiles=tiles)


def assemble(
    graph: Graph,
    blocks: Sequence[Block],
    plans: Sequence[MemoryPlan],
    hint: Mapping[str, int],
    avoided: frozenset[tuple[str, int]] = frozenset(),
    regions: Mapping[int, Sequence[Region]] = MappingProxyType({}),
) -> Lowered:
    """The program of blocks whose memory is planned.

    Args:
        graph: what the blocks were made from.
        blocks: the functions; number 0 is the model.
        plans: the memory of each.
        hint: typical values of the symbols.
        avoided: as for `lower`.
        regions: steps that run on several workers, by the number of the block.
    """
    tables = Tables()
    functions, instructions = [], []
    for number, (block, plan) in enumerate(zip(blocks, plans, strict=True)):
        emitter = Emitter(block, plan, tables, regions.get(number, ()))
        if number == 0:
            emitter.entry(*entry_checks(block, graph))
        functions.append(emitter.function())
        instructions.append(tuple(emitter.instructions))
    main = blocks[0]
    parameters = tuple(
        Parameter(item.buffer.name, "tensor", item.dtype, tuple(_shown(size) for size in item.sizes))
        if isinstance(item, View)
        else Parameter(str(graph.nodes[graph.inputs[position]].args[0]), "int")
        for position, item in enumerate(main.inputs)
    )
    numbers = itertools.count()
    program = Program(
        tuple(functions),
        parameters,
        map_tree(graph.outputs, lambda _: Ref(next(numbers))),
        tuple(tables.constants),
        tuple(tables.kernels),
        tuple(tables.fallbacks),
        tuple(tables.messages),
    )
    return Lowered(graph, program, tuple(blocks), tuple(plans), tuple(instructions), hint, avoided)


def typical_sizes(graph: Graph) -> dict[str, int]:
    """A value for each symbol within its range, no two alike where that can be."""
    found: dict[str, int] = {}
    for number, (name, limits) in enumerate(graph.symbols.items()):
        upper = 2**20 if limits.upper is None else limits.upper
        found[name] = max(limits.lower, min(upper, _TYPICAL + 2 * number + 1))
    return found


def _shown(size: int | sympy.Expr) -> int | str:
    return size if isinstance(size, int) else str(size)
