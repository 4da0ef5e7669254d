"""From a graph to straight-line code over views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import sympy
import torch

from taut.codegen import Recipe, map_recipe
from taut.compile._anchors import is_anchor
from taut.compile._block import Block, CheckStep, CopyStep, ItemStep, KernelStep, Step
from taut.compile._calls import lower_control_flow, lower_fallback
from taut.compile._convolutions import is_depthwise
from taut.compile._dims import free_symbols, plain, product
from taut.compile._epilogues import lower_anchor
from taut.compile._fusion import fuse, iteration_sizes
from taut.compile._grouped import Grouped, group
from taut.compile._joins import plan_joins
from taut.compile._kernel_operands import broadcast_to_one, memory_order, merge, operand
from taut.compile._layout_ops import is_layout, is_reshape, number, regroup, view_results
from taut.compile._numbers import scalar_input, unsupported_scalar
from taut.compile._pointwise import DTYPES, Expressions, Value, expression
from taut.compile._prebuilt import lower_prebuilt
from taut.compile._recurrent import lower_recurrent
from taut.compile._rows import is_reduction, is_row, keeps_dimensions, row_dimensions, row_expression
from taut.compile._tiles import choose_tiling
from taut.compile._views import Buffer, View, contiguous
from taut.cost import CostModel
from taut.graph import Argument, Dim, Graph, Node, Ref, ScalarType, TensorType, evaluate, symbol

Register = Callable[[Graph, str, tuple[str, ...], int | None], int]
"""Lowers a region as a function of its own, with the symbols that it is given besides its inputs, and the logical
device of the node around it; gives its number."""

CONTROL_FLOW = frozenset({"cond", "while_loop"})


class Lowering:
    """Lowers one graph or region.

    Args:
        graph: what to lower.
        name: of the function.
        hint: typical values of the symbols.
        register: lowers regions.
        avoided: ids of nodes that run on ATen, because their kernel could not be generated.
        given: symbols that follow the inputs as arguments.
        pins: logical devices of nodes.
        tiles: chooses tiles in place of the analytic rule.
    """

    def __init__(
        self,
        graph: Graph,
        name: str,
        hint: Mapping[str, int],
        register: Register,
        avoided: frozenset[int] = frozenset(),
        given: tuple[str, ...] = (),
        pins: Mapping[int, int] = MappingProxyType({}),
        tiles: CostModel | None = None,
    ) -> None:
        self.graph = graph
        self.name = name
        self.hint = hint
        self.register = register
        self.values: dict[Ref, View] = {}
        self.late: dict[Ref, Grouped] = {}
        self.steps: list[Step] = []
        self.known: set[str] = set()
        self.entry: frozenset[str] = frozenset()
        self._constants: dict[int, tuple[torch.Tensor, Buffer]] = {}  # with the tensor, lest its id be used again
        self._made: dict[tuple[Any, ...], Any] = {}
        self.label = ""
        self.pins = pins
        self.tiles = tiles
        self.pin: int | None = None  # of the node that is being lowered
        anchors = {node.id for node in graph.nodes if node.id not in avoided and is_anchor(graph, node)}
        self.anchors = anchors
        headed = frozenset(node for node in anchors if is_depthwise(graph, graph.nodes[node]))
        self.fusion = fuse(graph, frozenset(anchors), avoided, pins, headed)
        self.avoided = avoided
        ends = {chain[-1]: anchor for anchor, chain in self.fusion.chains.items()}
        alone = {anchor: anchor for anchor in anchors if anchor not in self.fusion.chains}
        self.joins = plan_joins(graph, lambda node: ends.get(node, alone.get(node)), pins)
        self.given = given

    def run(self) -> Block:
        """The whole graph as a block."""
        inputs: list[View | Dim] = []
        symbols: list[tuple[str, int, int]] = []
        for position, node in enumerate(self.graph.inputs):
            kind = self.graph.nodes[node].outputs[0]
            if isinstance(kind, TensorType):
                sizes = tuple(plain(size) for size in kind.shape)
                buffer = Buffer("input", kind.dtype, product(sizes), name=str(self.graph.nodes[node].args[0]))
                self.values[Ref(node)] = contiguous(buffer, sizes)
                inputs.append(self.values[Ref(node)])
                found = [(size, axis) for axis, size in enumerate(sizes)]
            else:
                inputs.append(scalar_input(self.graph.nodes[node], kind))
                found = [(inputs[-1], -1)]
            for size, axis in found:
                if isinstance(size, sympy.Symbol) and size.name not in self.known:
                    self.known.add(size.name)
                    symbols.append((size.name, position, axis))
        for name in self.given:
            self.known.add(name)
            symbols.append((name, len(inputs), -1))
            inputs.append(symbol(name))
        self.entry = frozenset(self.known)
        members = self.fusion.members
        ends = {chain[-1]: anchor for anchor, chain in self.fusion.chains.items()}
        for node in self.graph.nodes:
            self.label, self.pin = node.module_path or node.op, self.pins.get(node.id)
            if node.id in ends:
                lower_anchor(self, self.graph.nodes[ends[node.id]], self.fusion.chains[ends[node.id]])
            elif node.id not in members and node.id not in self.fusion.chains:
                self.node(node)
        self.pin = None
        results = tuple(self.result(ref) for ref in self.graph.output_refs)
        for result in results:
            if isinstance(result, View) and result.buffer.kind == "arena":
                result.buffer.kind = "storage"  # it outlives the call
        return Block(self.name, tuple(inputs), tuple(self.steps), results, tuple(symbols), dict(self.values))

    def node(self, node: Node) -> None:
        """Lower one node that starts nothing else."""
        if node.op == "input":
            return
        if node.op == "constant":
            return
        if node.op == "check":
            self.check(node)
        elif node.outputs and all(isinstance(kind, ScalarType) for kind in node.outputs):
            self.scalar(node)
        elif node.op in CONTROL_FLOW:
            lower_control_flow(self, node)
        elif node.id in self.anchors:
            lower_anchor(self, node, ())
        elif node.id in self.fusion.maps:
            self.map(node, self.fusion.maps[node.id])
        elif is_layout(node) and node.id not in self.avoided:
            self.layout(node)
        elif node.id in self.avoided or not (lower_recurrent(self, node) or lower_prebuilt(self, node)):
            lower_fallback(self, node)

    # --- values

    def tensor(self, argument: Argument) -> View:
        """The view of a tensor argument; a constant is one when it is first asked for."""
        assert isinstance(argument, Ref), argument
        if argument in self.late and argument not in self.values:
            late = self.late[argument]
            found = self.copy(late.view, range(late.view.rank)).reshape(late.sizes)
            assert found is not None
            self.values[argument] = found
        if argument not in self.values:
            tensor = self.graph.constant(argument)
            assert tensor is not None, argument
            self.values[argument] = self.constant(tensor, str(self.graph.nodes[argument.node].args[1]))
        return self.values[argument]

    def constant(self, tensor: torch.Tensor, name: str = "") -> View:
        """A constant of the program."""
        key = id(tensor)
        if key not in self._constants:
            value = tensor.detach().contiguous()
            self._constants[key] = tensor, Buffer("constant", tensor.dtype, tensor.numel(), value, name)
        return contiguous(self._constants[key][1], tuple(tensor.shape))

    def zeros(self, count: int) -> View:
        """A constant of zeros."""
        return self.constant(self.memo(("zeros", count), lambda: torch.zeros(count)))

    def result(self, ref: Ref) -> View | Dim:
        """What is returned for an output."""
        kind = self.graph.value_type(ref)
        return self.tensor(ref) if isinstance(kind, TensorType) else number(self.graph, ref)

    def new(self, dtype: torch.dtype, elements: Dim) -> Buffer:
        """Memory for a value: planned, unless its size is not known at the start."""
        late = not {symbol.name for symbol in free_symbols(elements)} <= self.entry
        return Buffer("storage" if late else "arena", dtype, elements, name=self.label)

    def tiled(self, recipe: Recipe, x: View, output: Sequence[Dim]) -> Recipe:
        """The tiling of a kernel that reads x and writes an output of these sizes."""
        model = self.tiles
        if model is None:
            return recipe
        read, written = ([evaluate(size, self.hint) for size in sizes] for sizes in (x.sizes, output))
        key = ("tiled", recipe.key, *read, *written)
        return self.memo(key, lambda: choose_tiling(recipe, read, written, model))

    def transposed(self, matrix: torch.Tensor) -> torch.Tensor:
        """A constant matrix transposed; the same tensor for the same matrix."""
        return self.memo((id(matrix), "transposed"), lambda: matrix.t().contiguous())

    def unsqueezed(self, weight: torch.Tensor) -> torch.Tensor:
        """Constant weights (O, C, W) as (O, C, 1, W); the same tensor for the same weights."""
        return self.memo((id(weight), "unsqueezed"), lambda: weight.unsqueeze(2).contiguous())

    def derived(self, tensor: torch.Tensor, purpose: str, make: Callable[[torch.Tensor], torch.Tensor]) -> View:
        """A constant made from one of the model's, e.g. packed; the same for the same purpose."""
        return self.constant(self.memo((id(tensor), purpose), lambda: make(tensor)), purpose)

    def memo(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for a key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def emit(self, step: Step) -> None:
        """Append a step."""
        if self.pin is not None and isinstance(step, KernelStep | CopyStep):
            step = dataclasses.replace(step, device=self.pin)
        self.steps.append(step)

    def contiguous(self, view: View) -> View:
        """The view, copied if its elements do not lie in row-major order."""
        if view.is_contiguous():
            return view
        return self.copy(view, range(view.rank))

    def copy(self, view: View, order: object) -> View:
        """A copy whose memory has the dimensions in that order."""
        axes = tuple(order)  # pyright: ignore
        key = (view.buffer, view.sizes, view.strides, view.offset, axes)
        return self.memo(key, lambda: self._copied(view, axes))

    def _copied(self, view: View, axes: tuple[int, ...]) -> View:
        source = view.permute(axes)
        target = contiguous(self.new(view.dtype, product(view.sizes)), source.sizes)
        pin, self.pin = self.pin, None  # others may read the copy too
        if view.dtype in DTYPES:
            self.emit_map([source], target, Expressions([("operand", 0)]))
        else:
            self.emit(CopyStep(source, target, self.label))
        self.pin = pin
        inverse = [axes.index(axis) for axis in range(view.rank)]
        return target.permute(inverse)

    # --- kinds of nodes

    def check(self, node: Node) -> None:
        """A run-time assertion."""
        holds = node.args[0]
        kind = self.graph.value_type(holds) if isinstance(holds, Ref) else None
        message = str(node.args[1]) if len(node.args) > 1 else "an assertion of the model"
        if isinstance(kind, ScalarType) and kind.expression is not None:
            if kind.expression != sympy.true:
                symbols = sorted(kind.expression.free_symbols, key=str)
                values = ", ".join(f"{symbol} = {{{symbol}}}" for symbol in symbols)
                self.emit(CheckStep(kind.expression, f"{message} does not hold: {values}", self.label))
        elif isinstance(kind, TensorType):
            symbol = f"check{node.id}"
            self.emit(ItemStep(self.tensor(holds), symbol, self.label))
            self.emit(CheckStep(sympy.Ne(sympy.Symbol(symbol, integer=True, nonnegative=True), 0), message, self.label))

    def scalar(self, node: Node) -> None:
        """A size: nothing to do, unless it is read from a tensor."""
        kind = node.outputs[0]
        assert isinstance(kind, ScalarType)
        if node.op.startswith("aten.item"):
            if isinstance(kind.expression, sympy.Symbol):
                self.emit(ItemStep(self.tensor(node.args[0]), kind.expression.name, self.label))
                self.known.add(kind.expression.name)
            else:
                raise unsupported_scalar(node)
        elif kind.expression is None:
            raise unsupported_scalar(node)

    def layout(self, node: Node) -> None:
        """A view of the argument, of a copy of it where no strides express the result, or ATen's result."""
        first = node.args[0]
        late = self.late.get(first) if isinstance(first, Ref) else None
        if late is not None and (found := regroup(node, late)) is not None:
            self.put(Ref(node.id), found)
            return
        source = self.tensor(first)
        try:
            found = view_results(self.graph, node, source)
        except LookupError:
            lower_fallback(self, node)
            return
        if found is None and is_reshape(node):
            grouped = group(source, [plain(size) for size in node.type.shape])
            found = view_results(self.graph, node, self.contiguous(source)) if grouped is None else None
            if grouped is not None:
                self.late[Ref(node.id)] = grouped
                return
        if found is None:
            lower_fallback(self, node)
            return
        for index, view in enumerate(found):
            self.values[Ref(node.id, index)] = view

    def put(self, ref: Ref, value: View | Grouped) -> None:
        """Note the value of a node."""
        if isinstance(value, View):
            self.values[ref] = value
        else:
            self.late[ref] = value

    def map(self, root: Node, members: tuple[int, ...]) -> None:
        """One kernel for a group of element-wise and row operations."""
        graph = self.graph
        space = iteration_sizes(graph, root)
        rows = [graph.nodes[member] for member in members if is_row(graph, graph.nodes[member])]
        reduced = row_dimensions(graph, rows[0]) if rows else ()
        made = Expressions()
        views: list[View] = []
        numbers: dict[Ref, int] = {}
        computed: dict[Ref, Value] = {}

        def value(ref: Ref) -> Value:
            if ref in computed:
                return computed[ref]
            node = graph.nodes[ref.node]
            if ref.node in members:
                make = row_expression if is_row(graph, node) else expression
                computed[ref] = make(graph, node, made, value)
                return computed[ref]
            if ref not in numbers:
                numbers[ref] = len(views)
                views.append(self.tensor(ref).expand(space))
            return Value(made.add("operand", numbers[ref]), self.tensor(ref).dtype)

        result = value(Ref(root.id))
        reference = max(views, key=self._moving) if views else None
        order = list(range(len(space))) if reference is None else memory_order(reference, self.hint, reduced)
        gone = reduced if is_reduction(root) else ()
        kept = [axis for axis in order if axis not in gone]
        buffer = self.new(root.type.dtype, product(space[axis] for axis in kept))
        # In the order of the space; the result does not move along what is reduced.
        result_view = contiguous(buffer, [space[axis] for axis in kept]).permute([kept.index(i) for i in sorted(kept)])
        for axis in gone:
            result_view = result_view.insert(axis)
        target = result_view.expand(space)
        made.cast_last(result, root.type.dtype)
        sources = [view.permute(order) for view in views]
        self.emit_map(sources, target.permute(order), made, len(reduced), members)
        if is_reduction(root) and not keeps_dimensions(root):
            result_view = result_view.drop(gone)
        self.values[Ref(root.id)] = result_view

    def _moving(self, view: View) -> int:
        """Elements of memory that a view covers."""
        covered = product(size for size, stride in zip(view.sizes, view.strides, strict=True) if stride != 0)
        return evaluate(covered, self.hint)

    def emit_map(
        self, sources: list[View], target: View, made: Expressions, rows: int = 0, nodes: tuple[int, ...] = ()
    ) -> None:
        """Emit a map over the target's sizes; the last `rows` dimensions are one row."""
        if target.buffer.elements == 0:  # nothing to compute
            return
        if rows and not any(_moves_along_row(view, rows) for view in sources):
            static = all(isinstance(size, int) for size in target.sizes[target.rank - rows :])
            if not static or not _moves_along_row(target, rows):
                sources[0] = self._gathered(sources[0], rows)  # the kernel takes the length of a row from an operand
        merged = merge([*sources, target], rows)
        if merged is None:  # a row that no single stride walks along
            gathered = [self._gathered(view, rows if _moves_along_row(view, rows) else 0) for view in sources]
            merged = merge([*gathered, target], rows)
            assert merged is not None
        *inputs, output = merged
        read = [broadcast_to_one(view) for view in inputs]
        written = broadcast_to_one(output)
        recipe = map_recipe(tuple(made.entries), [operand(view) for view in read], operand(written))
        in_place = () if rows else tuple(range(len(read)))
        self.emit(KernelStep(recipe, tuple(read), (written,), self.label, nodes, in_place))

    def _gathered(self, view: View, rows: int) -> View:
        """A copy in row-major order of what moves and of the last `rows` dimensions; others stay as they are."""
        first = view.rank - rows
        moving = [axis for axis in range(view.rank) if view.strides[axis] != 0 or axis >= first]
        copied = self.copy(view.permute(moving), range(len(moving)))
        strides = dict(zip(moving, copied.strides, strict=True))
        return copied.with_dimensions(view.sizes, [strides.get(axis, 0) for axis in range(view.rank)])

    def joined(self, node: int) -> View:
        """The memory of a concatenation of channels of images, as (N, C, H, W) with the channels next to each other."""

        def make() -> View:
            batch, channels, height, width = (plain(size) for size in self.graph.nodes[node].type.shape)
            sizes = (batch, height, width, channels)
            return contiguous(self.new(self.graph.nodes[node].type.dtype, product(sizes)), sizes).permute((0, 3, 1, 2))

        return self.memo(("joined", node), make)


def _moves_along_row(view: View, rows: int) -> bool:
    return any(stride != 0 for stride in view.strides[view.rank - rows :])
