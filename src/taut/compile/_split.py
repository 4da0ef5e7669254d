"""One kernel as several that each compute a part of its output."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from taut.codegen import Operand, Recipe, Window
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
        window: through which rows of the output see those of the inputs; None where each row sees its own.
        seen: how many of the first inputs it looks at.
    """

    axes: tuple[int | None, ...]
    axis: int
    unit: int
    units: tuple[int, ...]
    window: Window | None = None
    seen: int = 1


def split_step(step: Step, parts: int, *, rows: bool = False) -> tuple[Step, ...]:
    """A step as `parts` steps that write disjoint parts of its output, bit for bit the same.

    A linear layer or a product is cut by rows or matrices, a convolution by blocks of output channels, by pixels or by
    images, anything element by element along the outermost dimension.

    With `rows`, what looks at images through a window is cut by images or by rows: a part then reads its own rows and
    those that its windows see beyond them, so that a worker may do the same part of many steps on its own data, where
    blocks of channels each read the whole input. A kernel of fewer rows may add in another order: then the result is
    that of the whole up to rounding.

    Args:
        step: a kernel with one output, generated from a recipe; sizes along the cut are static.
        parts: how many, at least 1.
        rows: whether only cuts by images, rows and pixels count.

    Raises:
        ArgumentError: the step has no dimension with so many parts.
    """
    if parts == 1:
        return (step,)
    cut = _best(step, parts, rows)
    if cut is None:
        raise ArgumentError("parts", parts, expected=f"1 for the step {getattr(step, 'label', '')!r}")
    assert isinstance(step, KernelStep)
    return _pieces(step, cut, parts)


def can_split(step: Step, parts: int, *, rows: bool = False) -> bool:
    """Whether `split_step` does it."""
    return parts == 1 or _best(step, parts, rows) is not None


def _best(step: Step, parts: int, rows: bool) -> Cut | None:
    if isinstance(step, CopyStep) or not isinstance(step, KernelStep) or not isinstance(step.kernel, Recipe):
        return None
    if len(step.outputs) != 1:
        return None
    for cut in _cuts(step, step.kernel, rows):
        size = step.outputs[0].sizes[cut.axis]
        if isinstance(size, int) and -(-size // cut.unit) >= parts and _fits(step, cut, parts):
            return cut
    return None


def _cuts(step: KernelStep, recipe: Recipe, rows: bool) -> list[Cut]:
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
            # A block of channels has its own sums whatever the number of blocks.
            block = int(recipe.parameters["block"])
            channels = _aligned(step, 3, [None, 0], block, [0, 1])
            images = _aligned(step, 0, [0, None])
            if recipe.parameters["channels_first"]:
                lines = _through_window(step, recipe, [2, None])
            elif _is_pointwise(recipe):
                pixels = [_aligned(step, axis, [axis, None]) for axis in (1, 2)]
                return [images, *pixels] if rows else [channels, *pixels, images]
            else:
                lines = _through_window(step, recipe, [1, None])
            return [images, lines] if rows else [channels, images]
        case "depthwise":
            count = int(recipe.parameters.get("inputs", 1))
            own = [[axis, *(_own(view, axis) for view in step.inputs[1:count])] for axis in range(4)]
            images = _aligned(step, 0, [*own[0], None])
            lines = dataclasses.replace(_through_window(step, recipe, [*own[1], None]), seen=count)
            return [images, lines] if rows else [_aligned(step, 3, [*own[3], 2], 16, [16] * (count + 1)), images]
        case "pool" if recipe.parameters["kind"] != "global_average":
            images, channels = _aligned(step, 0, [0]), _aligned(step, 3, [3], 16)
            return [images, _through_window(step, recipe, [1])] if rows else [channels, images]
        case "map":
            by_rows = any(str(entry[0]).startswith("row_") for entry in recipe.expression)
            return [_aligned(step, axis, []) for axis in range(rank - by_rows)]
    return []


def _is_pointwise(recipe: Recipe) -> bool:
    window = Window.of(recipe)
    return window.kernel == window.stride == (1, 1) and not any(window.padding)


def _through_window(step: KernelStep, recipe: Recipe, own: Sequence[int | None]) -> Cut:
    """By rows of an image of which each output row sees several."""
    return dataclasses.replace(_aligned(step, 1, own), window=Window.of(recipe))


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


def _pieces(step: KernelStep, cut: Cut, parts: int) -> tuple[KernelStep, ...]:
    total = step.outputs[0].sizes[cut.axis]
    assert isinstance(total, int)
    count = -(-total // cut.unit)
    made = []
    for part in range(parts):
        begin, end = (count * edge // parts for edge in (part, part + 1))
        made.append(_part(step, cut, begin, min(end * cut.unit, total) - begin * cut.unit))
    return tuple(made)


def _fits(step: KernelStep, cut: Cut, parts: int) -> bool:
    """Whether each part sees some rows."""
    if cut.window is None:
        return True
    axis = cut.axes[0]
    assert axis is not None
    if not isinstance(step.inputs[0].sizes[axis], int):
        return False
    return all(int(piece.inputs[0].sizes[axis]) > 0 for piece in _pieces(step, cut, parts))


def _part(step: KernelStep, cut: Cut, begin: int, size: int) -> KernelStep:
    """The part of `size` elements from unit `begin` on."""
    units = -(-size // cut.unit)
    recipe = step.kernel
    assert isinstance(recipe, Recipe)
    inputs = []
    parameters = dict(recipe.parameters)
    for number, (view, axis, own) in enumerate(zip(step.inputs, cut.axes, cut.units, strict=True)):
        whole = None if axis is None else view.sizes[axis]
        if axis is None or not isinstance(whole, int):
            inputs.append(view)
        elif number < cut.seen and cut.window is not None:
            inputs.append(_seen(view, axis, cut.window, begin, size, parameters))
        else:
            inputs.append(_dense(view.narrow(axis, begin * own, min(units * own, whole - begin * own))))
    output = step.outputs[0].narrow(cut.axis, begin * cut.unit, size)
    operands = tuple(_resized(operand, view) for operand, view in zip(recipe.operands, (*inputs, output), strict=True))
    made = dataclasses.replace(recipe, operands=operands, parameters=parameters)
    return dataclasses.replace(step, kernel=made, inputs=tuple(inputs), outputs=(output,), in_place=())


def _seen(
    view: View, axis: int, window: Window, begin: int, size: int, parameters: dict[str, int | float | bool | str]
) -> View:
    """The rows that `size` output rows from `begin` on see; sets the padding that is left to them."""
    whole = view.sizes[axis]
    assert isinstance(whole, int)
    first = begin * window.stride[0] - window.padding[0]
    last = first + window.reach(0, size)
    start, end = max(first, 0), min(last, whole)
    for side, beyond in ((0, start - first), (1, last - end)):
        parameters[f"padding{side}"] = beyond
        if f"counted{side}" in parameters:
            parameters[f"counted{side}"] = min(int(parameters[f"counted{side}"]), beyond)
    return view.narrow(axis, start, end - start)


def _dense(view: View) -> View:
    """The view; a part of a constant that does not lie in one piece becomes one of its own, as kernels expect."""
    constant = view.buffer.constant
    sizes, strides = view.sizes, view.strides
    if constant is None or view.is_contiguous() or 0 in strides:
        return view
    begin = constant.storage_offset() + int(view.offset)
    part = constant.as_strided(sizes, strides, begin).contiguous()  # pyright: ignore[reportArgumentType]
    buffer = Buffer("constant", view.dtype, part.numel(), part, view.buffer.name)
    return contiguous(buffer, tuple(part.shape))


def _resized(operand: Operand, view: View) -> Operand:
    shape = tuple(None if old is None else new for old, new in zip(operand.shape, view.sizes, strict=True))
    return dataclasses.replace(operand, shape=shape)
