"""One kernel as several that each compute a part of its output."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from taut.codegen import Operand, Recipe
from taut.compile._block import CopyStep, KernelStep, Step
from taut.compile._views import Buffer, View, contiguous
from taut.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Cut:
    """Where the operands of a kernel are cut.

    Attributes:
        axes: for each input the dimension, or None where every part reads all of it.
        axis: of the output.
        unit: elements of the output's dimension that stay together.
        units: for each input, elements of its dimension for one unit.
    """

    axes: tuple[int | None, ...]
    axis: int
    unit: int
    units: tuple[int, ...]


def split_step(step: Step, parts: int) -> tuple[Step, ...]:
    """A step as `parts` steps that write disjoint parts of its output, bit for bit the same.

    A linear layer or a product is cut by rows or matrices, a convolution by blocks of output channels, by pixels or by
    images, anything element by element along the outermost dimension.

    Args:
        step: a kernel with one output, generated from a recipe; sizes along the cut are static.
        parts: how many, at least 1.

    Raises:
        ArgumentError: the step has no dimension with so many parts.
    """
    if parts == 1:
        return (step,)
    cut = _best(step, parts)
    if cut is None:
        raise ArgumentError("parts", parts, expected=f"1 for the step {getattr(step, 'label', '')!r}")
    assert isinstance(step, KernelStep)
    total = step.outputs[0].sizes[cut.axis]
    assert isinstance(total, int)
    count = -(-total // cut.unit)
    made = []
    for part in range(parts):
        begin, end = (count * edge // parts for edge in (part, part + 1))
        made.append(_part(step, cut, begin, min(end * cut.unit, total) - begin * cut.unit))
    return tuple(made)


def can_split(step: Step, parts: int) -> bool:
    """Whether `split_step` does it."""
    return parts == 1 or _best(step, parts) is not None


def _best(step: Step, parts: int) -> Cut | None:
    if isinstance(step, CopyStep) or not isinstance(step, KernelStep) or not isinstance(step.kernel, Recipe):
        return None
    if len(step.outputs) != 1:
        return None
    for cut in _cuts(step, step.kernel):
        size = step.outputs[0].sizes[cut.axis]
        if isinstance(size, int) and -(-size // cut.unit) >= parts:
            return cut
    return None


def _cuts(step: KernelStep, recipe: Recipe) -> list[Cut]:
    """The ways to cut a kernel, the best first."""
    rank = step.outputs[0].rank
    match recipe.template:
        case "linear":
            return [_aligned(step, 0, [0, None])]
        case "matmul":
            return [
                _aligned(step, 0, [_own(view, 0) for view in step.inputs[:2]]),
                _aligned(step, 1, [_own(step.inputs[0], 1), None]),
            ]
        case "convolution":
            found = []
            # A block of channels has its own sums whatever the number of blocks.
            block = int(recipe.parameters["block"])
            found.append(_aligned(step, 3, [None, 0], block, [0, 1]))
            pointwise = all(
                recipe.parameters[name] == wanted
                for name, wanted in (("kernel0", 1), ("kernel1", 1), ("stride0", 1), ("stride1", 1))
            ) and not any(recipe.parameters[f"padding{side}"] for side in range(4))
            if pointwise and not recipe.parameters["channels_first"]:
                found += [_aligned(step, axis, [axis, None]) for axis in (1, 2)]
            return [*found, _aligned(step, 0, [0, None])]
        case "depthwise":
            return [_aligned(step, 3, [3, 2], 16, [16, 16]), _aligned(step, 0, [0, None])]
        case "map":
            return [_aligned(step, 0, [])] if rank >= 2 else []
    return []


def _aligned(step: KernelStep, axis: int, own: Sequence[int | None], unit: int = 1, units: Sequence[int] = ()) -> Cut:
    """Along a dimension of the output; inputs beyond `own` align with the output from the right."""
    rank = step.outputs[0].rank
    axes = list(own)
    for view in step.inputs[len(own) :]:
        axes.append(_own(view, axis - (rank - view.rank)))
    sizes = [*units, *[unit] * (len(axes) - len(units))]
    return Cut(tuple(axes), axis, unit, tuple(sizes))


def _own(view: View, axis: int) -> int | None:
    return axis if axis >= 0 and view.sizes[axis] != 1 else None


def _part(step: KernelStep, cut: Cut, begin: int, size: int) -> KernelStep:
    """The part of `size` elements from unit `begin` on."""
    units = -(-size // cut.unit)
    inputs = []
    for view, axis, own in zip(step.inputs, cut.axes, cut.units, strict=True):
        whole = None if axis is None else view.sizes[axis]
        if axis is None or not isinstance(whole, int):
            inputs.append(view)
        else:
            inputs.append(_dense(view.narrow(axis, begin * own, min(units * own, whole - begin * own))))
    output = step.outputs[0].narrow(cut.axis, begin * cut.unit, size)
    recipe = step.kernel
    assert isinstance(recipe, Recipe)
    operands = tuple(_resized(operand, view) for operand, view in zip(recipe.operands, (*inputs, output), strict=True))
    made = dataclasses.replace(recipe, operands=operands)
    return dataclasses.replace(step, kernel=made, inputs=tuple(inputs), outputs=(output,), in_place=())


def _dense(view: View) -> View:
    """The view; a part of a constant that does not lie in one piece becomes one of its own, as kernels expect."""
    constant = view.buffer.constant
    sizes, strides = view.sizes, view.strides
    if constant is None or view.is_contiguous() or 0 in strides:
        return view
    part = constant.as_strided(sizes, strides, int(view.offset)).contiguous()  # pyright: ignore[reportArgumentType]
    buffer = Buffer("constant", view.dtype, part.numel(), part, view.buffer.name)
    return contiguous(buffer, tuple(part.shape))


def _resized(operand: Operand, view: View) -> Operand:
    shape = tuple(None if old is None else new for old, new in zip(operand.shape, view.sizes, strict=True))
    return dataclasses.replace(operand, shape=shape)
