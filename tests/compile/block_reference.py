"""The meaning of blocks and recipes in plain torch: what generated kernels and the machine have to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor

from taut.codegen import Expression, Recipe, Window
from taut.codegen._depthwise import inputs_before
from taut.compile._block import (
    Block,
    CallStep,
    CheckStep,
    CopyStep,
    FallbackStep,
    ItemStep,
    KernelStep,
    Step,
    TransferStep,
    buffers_of,
)
from taut.compile._views import Buffer, View
from taut.graph import Dim, Interpreter, evaluate

_DTYPES = {name: getattr(torch, name) for name in ("float32", "int64", "int32", "int8", "uint8", "bool")}
_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": torch.nn.functional.silu,
    "not": torch.logical_not,
}
_BINARY = {"and": torch.logical_and, "or": torch.logical_or}


def run(blocks: Sequence[Block], inputs: Sequence[Any], number: int = 0) -> list[Any]:
    """Run a block on tensors and integers; each buffer gets memory of its own, poisoned."""
    return _Run(blocks, number).run(inputs)


class _Run:
    def __init__(self, blocks: Sequence[Block], number: int) -> None:
        self.blocks = blocks
        self.block = blocks[number]
        self.memory: dict[Buffer, Tensor] = {}
        self.sizes: dict[str, int] = {}

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        for item, value in zip(self.block.inputs, inputs, strict=True):
            if isinstance(item, View):
                self.memory[item.buffer] = value.contiguous().reshape(-1)
        for name, position, axis in self.block.symbols:
            self.sizes[name] = inputs[position] if axis < 0 else inputs[position].shape[axis]
        for step in self.block.steps:
            self.step(step)
        return [self.value(item) for item in self.block.results]

    def step(self, step: Step) -> None:
        read, written = buffers_of(step)
        devices = {buffer.device for buffer in (read if isinstance(step, TransferStep) else [*read, *written])}
        assert len(devices) <= 1, f"{step} meets two devices"
        on_host = isinstance(step, FallbackStep | ItemStep | CallStep)
        assert not (on_host and any(devices)), f"{step} is off the host"
        match step:
            case KernelStep(kernel=Recipe() as recipe):
                tensors = [self.tensor(view) for view in (*step.inputs, *step.outputs)]
                for operand, tensor in zip(recipe.operands, tensors, strict=True):
                    assert len(operand.shape) == tensor.dim()
                    for size, actual in zip(operand.shape, tensor.shape, strict=True):
                        assert size is None or size == actual
                    assert not operand.dense or tensor.dim() == 0 or tensor.shape[-1] <= 1 or tensor.stride(-1) == 1
                TEMPLATES[recipe.template](recipe, *tensors)
            case KernelStep():
                _PREBUILT[str(step.kernel)](*[self.tensor(view) for view in (*step.inputs, *step.outputs)])
            case CopyStep() | TransferStep():
                self.tensor(step.target).copy_(self.tensor(step.source))
            case FallbackStep():
                results = Interpreter(step.graph)(*[self.value(item) for item in step.inputs])
                self.results(step, results)
            case ItemStep():
                self.sizes[step.symbol] = int(self.tensor(step.source).item())
            case CheckStep():
                assert self.truth(step.condition), step.message
            case CallStep():
                self.call(step)

    def call(self, step: CallStep) -> None:
        values = [self.value(item) for item in step.inputs]
        if step.kind == "cond":
            assert step.predicate is not None
            holds = (
                bool(self.tensor(step.predicate).item())
                if isinstance(step.predicate, View)
                else self.truth(step.predicate)
            )
            self.results(step, run(self.blocks, values, step.functions[0 if holds else 1]))
        else:
            carried = values[: len(step.outputs)]
            while bool(run(self.blocks, [*carried, *values[len(carried) :]], step.functions[0])[0].item()):
                carried = run(self.blocks, [*carried, *values[len(carried) :]], step.functions[1])
            self.results(step, carried)

    def results(self, step: FallbackStep | CallStep, values: Sequence[Tensor]) -> None:
        for name, index, axis in step.binds:
            self.sizes[name] = values[index].shape[axis]
        for view, value in zip(step.outputs, values, strict=True):
            assert tuple(value.shape) == tuple(evaluate(size, self.sizes) for size in view.sizes)
            self.memory[view.buffer] = value.contiguous().reshape(-1)

    def value(self, item: View | Dim) -> Any:
        return self.tensor(item).clone() if isinstance(item, View) else evaluate(item, self.sizes)

    def truth(self, condition: sympy.Basic) -> bool:
        return bool(condition.subs({sympy.Symbol(k, integer=True, nonnegative=True): v for k, v in self.sizes.items()}))

    def tensor(self, view: View) -> Tensor:
        buffer = view.buffer
        if buffer not in self.memory:
            if buffer.constant is not None:
                self.memory[buffer] = buffer.constant.reshape(-1)
            else:
                count = evaluate(buffer.elements, self.sizes)
                poison = float("nan") if buffer.dtype.is_floating_point else 113
                self.memory[buffer] = torch.full((count,), poison, dtype=buffer.dtype)
        sizes = [evaluate(size, self.sizes) for size in view.sizes]
        strides = [evaluate(stride, self.sizes) for stride in view.strides]
        return self.memory[buffer].as_strided(sizes, strides, evaluate(view.offset, self.sizes))


def evaluate_expression(
    entries: Expression, operands: Sequence[Tensor], accumulator: Tensor | None, sizes: Sequence[int]
) -> Tensor:
    """The value of an expression over the space with these sizes."""
    values: list[Tensor] = []
    for name, *arguments in entries:
        if name == "accumulator":
            assert accumulator is not None
            value = accumulator
        elif name == "operand":
            value = operands[arguments[0]]
        elif name == "constant":
            dtype = torch.float32 if isinstance(arguments[0], float) else torch.int32
            value = torch.full((1,) * len(sizes), arguments[0], dtype=dtype)
        elif name == "cast":
            value = values[arguments[1]].to(_DTYPES[arguments[0]])
        elif name == "where":
            value = torch.where(*[values[argument] for argument in arguments])
        elif name.startswith("row_"):
            whole = values[arguments[0]].expand(*values[arguments[0]].shape[:-1], sizes[-1])
            reduce = {"row_sum": torch.sum, "row_max": torch.amax, "row_min": torch.amin}[name]
            value = reduce(whole, dim=-1, keepdim=True) if sizes[-1] else whole.new_zeros((*whole.shape[:-1], 1))
        else:
            function = _UNARY.get(name) or _BINARY.get(name) or getattr(torch, name)
            value = function(*[values[argument] for argument in arguments])
        values.append(value)
    return values[-1]


def _map(recipe: Recipe, *tensors: Tensor) -> None:
    *inputs, output = tensors
    sizes = list(torch.broadcast_shapes(*(tensor.shape for tensor in tensors)))
    output.copy_(evaluate_expression(recipe.expression, inputs, None, sizes))


def _linear(recipe: Recipe, *tensors: Tensor) -> None:
    x, packed, *_, output = tensors
    total = x @ unpack_linear(packed, output.shape[1])
    output.copy_(evaluate_expression(recipe.expression, tensors[:-1], total, output.shape))


def unpack_linear(packed: Tensor, features: int) -> Tensor:
    """(K, N) from column blocks."""
    return packed.permute(1, 0, 2).reshape(packed.shape[1], -1)[:, :features]


def _matmul(recipe: Recipe, *tensors: Tensor) -> None:
    a, b, *_, output = tensors
    output.copy_(evaluate_expression(recipe.expression, tensors[:-1], a @ b, output.shape))


def _attention(recipe: Recipe, *tensors: Tensor) -> None:
    q, k, v, *mask, output = tensors
    scale = recipe.parameters.get("scale") or None
    causal = bool(recipe.parameters.get("causal"))
    bias = mask[0].expand(*q.shape[:3], k.shape[2]) if mask else None
    output.copy_(torch.nn.functional.scaled_dot_product_attention(q, k, v, bias, is_causal=causal, scale=scale))  # pyright: ignore


def _convolution(recipe: Recipe, *tensors: Tensor) -> None:
    count, before = inputs_before(recipe)
    x, packed, output = tensors[0], tensors[count], tensors[-1]
    if before:
        x = evaluate_expression(before, tensors[:count], None, x.shape)
    window = Window.of(recipe)
    nchw = x if recipe.parameters.get("channels_first") else x.permute(0, 3, 1, 2)
    groups = 1
    if recipe.template == "depthwise":
        weight, groups = packed.permute(2, 0, 1)[:, None], packed.shape[-1]
    else:
        blocks, height, width, depth, block = packed.shape
        weight = packed.permute(0, 4, 3, 1, 2).reshape(blocks * block, depth, height, width)[: output.shape[3]]
    up, down, left, right = window.padding
    padded = torch.nn.functional.pad(nchw, (left, right, up, down))
    total = torch.nn.functional.conv2d(padded, weight, None, window.stride, 0, window.dilation, groups)
    output.copy_(evaluate_expression(recipe.expression, tensors[:-1], total.permute(0, 2, 3, 1), output.shape))


def _pool(recipe: Recipe, *tensors: Tensor) -> None:
    x, *_, output = tensors
    window = Window.of(recipe)
    nchw, padding = x.permute(0, 3, 1, 2), (window.padding[0], window.padding[2])
    if recipe.parameters["kind"] == "max":
        found = torch.nn.functional.max_pool2d(nchw, window.kernel, window.stride, padding, window.dilation)
    elif recipe.parameters["kind"] == "global_average":
        found = nchw.mean((2, 3), keepdim=True)
    else:
        counts = any(recipe.parameters[f"counted{side}"] for side in range(4))
        found = torch.nn.functional.avg_pool2d(nchw, window.kernel, window.stride, padding, False, counts)
    output.copy_(evaluate_expression(recipe.expression, tensors[:-1], found.permute(0, 2, 3, 1), output.shape))


TEMPLATES: Mapping[str, Callable[..., None]] = {
    "map": _map,
    "linear": _linear,
    "matmul": _matmul,
    "attention": _attention,
    "convolution": _convolution,
    "depthwise": _convolution,
    "pool": _pool,
}


def _embedding(table: Tensor, indices: Tensor, rows: Tensor) -> None:
    rows.copy_(table[indices])


def _nonzero(source: Tensor, whole: Tensor, count: Tensor) -> None:
    found = source.nonzero()
    whole[: len(found)] = found
    count[0] = len(found)


_PREBUILT: Mapping[str, Callable[..., None]] = {"embedding": _embedding, "nonzero": _nonzero}
