"""A kernel with a template takes the element-wise nodes behind it as its epilogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taut.codegen import is_heavy
from taut.compile._anchor import Anchor
from taut.compile._anchors import make_anchor
from taut.compile._block import KernelStep
from taut.compile._dims import product
from taut.compile._grouped import Grouped
from taut.compile._kernel_operands import align, broadcast_to_one, operand
from taut.compile._layout_ops import is_layout, regroup, view_results
from taut.compile._pointwise import Expressions, Value, expression
from taut.compile._views import Buffer, View, contiguous
from taut.graph import Node, Ref

if TYPE_CHECKING:
    from taut.compile._lowering import Lowering


def lower_anchor(lowering: Lowering, node: Node, chain: tuple[int, ...]) -> None:
    """A kernel with its epilogue; what does not fit into it is lowered on its own."""
    lowering.label = node.module_path or node.op
    anchor = make_anchor(lowering, node)
    virtual = Buffer("arena", node.type.dtype, product(anchor.sizes))
    current = anchor.view(virtual)
    made = Expressions()
    extras: list[View] = [*anchor.extras]
    entry = anchor.start(made)
    last, rest = node, ()
    for position, member in enumerate(chain):
        step = lowering.graph.nodes[member]
        following = _epilogue(lowering, step, last, current, anchor, made, extras, entry)
        if following is None:
            rest = chain[position:]
            break
        current, entry = following
        last = step
    target, value = _place(lowering, last, anchor, current)
    made.cast_last(Value(entry, last.type.dtype), last.type.dtype)
    read = [broadcast_to_one(view) for view in extras]
    recipe = anchor.recipe([operand(view) for view in read], operand(target), tuple(made.entries))
    nodes = (*lowering.fusion.heads.get(node.id, ()), node.id, *(member for member in chain if member not in rest))
    in_place = anchor.in_place and not is_heavy(recipe.expression)
    others = range(len(anchor.inputs), len(anchor.inputs) + len(read)) if in_place else ()
    step = KernelStep(recipe, (*anchor.inputs, *read), (target,), lowering.label, nodes, tuple(others))
    lowering.emit(step)
    lowering.put(Ref(last.id), value)
    for member in rest:
        step = lowering.graph.nodes[member]
        if is_layout(step):
            lowering.layout(step)
        else:
            lowering.map(step, (member,))


def _place(lowering: Lowering, last: Node, anchor: Anchor, current: View | Grouped) -> tuple[View, View | Grouped]:
    """What a kernel writes, and the value of the last node of its chain there."""
    join = lowering.joins.get(Ref(last.id))
    if join is None:
        buffer = lowering.new(last.type.dtype, product(anchor.sizes))
        return contiguous(buffer, anchor.sizes), _moved(current, buffer)
    *pixels, channels = anchor.sizes
    whole = lowering.joined(join.node)
    rows = whole.permute((0, 2, 3, 1)).reshape((*pixels, join.channels))
    assert rows is not None
    return rows.narrow(3, join.start, channels), whole.narrow(1, join.start, channels)


def _epilogue(
    lowering: Lowering,
    step: Node,
    last: Node,
    current: View | Grouped,
    anchor: Anchor,
    made: Expressions,
    extras: list[View],
    entry: int,
) -> tuple[View | Grouped, int] | None:
    """The view and entry after one more node of the chain, or None if it does not fit."""
    if is_layout(step):
        if isinstance(current, Grouped):
            found = regroup(step, current)
            return None if found is None else (found, entry)
        views = view_results(lowering.graph, step, current)
        return None if views is None else (views[0], entry)
    if isinstance(current, Grouped):
        return None
    aligned: dict[Ref, View] = {}
    for ref in step.inputs:
        if ref.node != last.id:
            view = align(lowering.tensor(ref).expand(current.sizes), current, anchor.sizes, lowering.hint)
            if view is None:
                return None
            aligned[ref] = view

    def value(ref: Ref) -> Value:
        if ref.node == last.id:
            return Value(entry, last.type.dtype)
        extras.append(aligned[ref])
        return Value(made.add("operand", len(anchor.inputs) + len(extras) - 1), aligned[ref].dtype)

    return current, expression(lowering.graph, step, made, value).entry


def _moved(value: View | Grouped, buffer: Buffer) -> View | Grouped:
    """The same view of another buffer."""
    if isinstance(value, Grouped):
        moved = _moved(value.view, buffer)
        assert isinstance(moved, View)
        return Grouped(moved, value.groups)
    return View(buffer, value.sizes, value.strides, value.offset)
