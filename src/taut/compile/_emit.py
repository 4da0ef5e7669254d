"""From straight-line code to instructions: registers, the heap of sizes, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import sympy
import torch

from taut.codegen import Recipe
from taut.compile._block import (
    Block,
    CallStep,
    CheckStep,
    CopyStep,
    FallbackStep,
    ItemStep,
    KernelStep,
    Region,
    Step,
    TransferStep,
    buffers_of,
    inputs_of,
    outputs_of,
)
from taut.compile._checks import EntryCheck, EntrySize
from taut.compile._dims import plain, product, same
from taut.compile._memory import MemoryPlan
from taut.compile._shapes import Sizes
from taut.compile._views import Buffer, View, contiguous_strides
from taut.graph import Dim, Graph
from taut.runtime import DTYPES, Function, Instruction, Kernel, Opcode, OperandType


class Tables:
    """What all functions of a program share: constants, kernels, fallbacks and messages, each by number."""

    def __init__(self) -> None:
        self.constants: list[torch.Tensor] = []
        self.kernels: list[Kernel] = []
        self.fallbacks: list[Graph] = []
        self.messages: list[str] = []
        self._constants: dict[tuple[int, tuple[int, ...]], int] = {}
        self._kernels: dict[object, int] = {}

    def constant(self, tensor: torch.Tensor, sizes: tuple[int, ...] | None = None) -> int:
        """The number of a constant, seen with these sizes."""
        sizes = tuple(tensor.shape) if sizes is None else sizes
        key = (id(tensor), sizes)
        if key not in self._constants:
            self._constants[key] = len(self.constants)
            self.constants.append(tensor.reshape(sizes))
        return self._constants[key]

    def kernel(self, step: KernelStep) -> int:
        """The number of the kernel that a step calls."""
        operands = tuple(OperandType(view.dtype, view.rank) for view in step.inputs)
        operands += tuple(OperandType(view.dtype, view.rank, written=True) for view in step.outputs)
        recipe = step.kernel if isinstance(step.kernel, Recipe) else None
        key = (recipe.key if recipe else step.kernel, operands)
        if key not in self._kernels:
            self._kernels[key] = len(self.kernels)
            name = recipe.template if recipe else str(step.kernel)
            self.kernels.append(Kernel(name, operands, recipe))
        return self._kernels[key]

    def fallback(self, graph: Graph) -> int:
        """The number of a fallback."""
        self.fallbacks.append(graph)
        return len(self.fallbacks) - 1

    def message(self, text: str) -> int:
        """The number of a message."""
        if text not in self.messages:
            self.messages.append(text)
        return self.messages.index(text)


class Emitter:
    """Emits one function.

    Args:
        block: its code.
        plan: its memory.
        tables: shared with the other functions.
        regions: steps that run on several workers.

    Attributes:
        instructions: the number of the last instruction of each step, once the function is made.
    """

    def __init__(self, block: Block, plan: MemoryPlan, tables: Tables, regions: Sequence[Region] = ()) -> None:
        self.block = block
        self.regions = {region.start: region for region in regions}
        self.instructions: list[int] = []
        self.plan = plan
        self.tables = tables
        self.sizes = Sizes()
        self.code: list[Instruction] = []
        self.labels: list[str] = []
        self.registers = 0
        self._label = ""
        self._views: dict[tuple, int] = {}  # registers by what they show
        self._whole: dict[Buffer, int] = {}  # for each buffer a register that shows it
        self._last = self._last_uses()

        for item in self.block.inputs:
            register = self.new_register()
            if isinstance(item, View):
                self._remember(item, register)
        for name, position, axis in self.block.symbols:
            slot = self.sizes.bind(name)
            self.add(Opcode.LOAD, slot, position) if axis < 0 else self.add(Opcode.BIND, slot, position, axis)

    def entry(
        self, sizes: Sequence[EntrySize], solved: Sequence[tuple[str, sympy.Expr]], checks: Sequence[EntryCheck]
    ) -> None:
        """Bind and check what arguments tell beyond the block's symbols."""
        for size in sizes:
            slot = self.sizes.bind(size.name)
            if size.axis < 0:
                self.add(Opcode.LOAD, slot, size.position)
            else:
                self.add(Opcode.BIND, slot, size.position, size.axis)
        for name, value in solved:
            self.sizes.define(name, value)
        for check in checks:
            self.check(check.condition, check.message)

    def function(self) -> Function:
        """The function."""
        if self.plan.total != 0:
            self.add(Opcode.ARENA, self.slot(self.plan.total))
        position = 0
        while position < len(self.block.steps):
            region = self.regions.get(position)
            end = position + 1 if region is None else region.end
            if region is not None:
                self.region(region)
            for number in range(position, end):
                self._label = self.block.steps[number].label
                self.step(self.block.steps[number])
                self.instructions.append(len(self.code) - 1)
            for number in range(position, end):
                self._release(number)
            position = end
        self._label = ""
        results = [self.value(item) for item in self.block.results]
        self.add(Opcode.RETURN, len(results), *results)
        return Function(
            self.block.name,
            len(self.block.inputs),
            len(results),
            self.registers,
            self.sizes.count,
            tuple(self.code),
            tuple(self.sizes.code),
            tuple(self.labels),
        )

    def step(self, step: Step) -> None:
        """The instructions of a step."""
        match step:
            case KernelStep():
                registers = [self.view(view) for view in (*step.inputs, *step.outputs)]
                self.add(Opcode.KERNEL, self.tables.kernel(step), len(registers), *registers)
            case CopyStep(source=source, target=target):
                self.add(Opcode.COPY, self.view(target), self.view(source))
            case TransferStep(source=source, target=target):
                shown = self.view(source)
                self.add(Opcode.TRANSFER, self.result(target), shown, target.buffer.device)
            case FallbackStep():
                arguments = [self.value(item) for item in step.inputs]
                results = [self.result(view) for view in step.outputs]
                number = self.tables.fallback(step.graph)
                self.add(Opcode.FALLBACK, number, len(arguments), *arguments, len(results), *results)
                self.bind(step.binds, results)
            case ItemStep(source=source, symbol=symbol):
                register = self.view(source)
                self.add(Opcode.ITEM, self.sizes.bind(symbol), register)
            case CheckStep(condition=condition, message=message):
                self.check(condition, message)
            case CallStep():
                self.call(step)

    def region(self, region: Region) -> None:
        """What must stand in front of steps that several workers run: their registers, and who runs what when."""
        for step in self.block.steps[region.start : region.end]:
            assert isinstance(step, KernelStep | CopyStep)
            self._label = step.label
            for view in (*inputs_of(step), *outputs_of(step)):
                self.view(view)
        self._label = ""
        words = [word for task in region.tasks for word in (task.steps, task.worker, len(task.after), *task.after)]
        self.add(Opcode.PARALLEL, len(region.tasks), *words)

    def call(self, step: CallStep) -> None:
        """A branch, a loop or a plain call."""
        arguments = [self.value(item) for item in step.inputs]
        results = [self.result(view) for view in step.outputs]
        if step.kind == "while_loop":
            self.loop(step, arguments, results)
        elif step.kind == "cond":
            if isinstance(step.predicate, View):
                slot = self.sizes.new_slot()
                self.add(Opcode.ITEM, slot, self.view(step.predicate))
            else:
                slot = self.slot(step.predicate)  # pyright: ignore
            branch = self.add(Opcode.BRANCH, slot, -1)
            self.invoke(step.functions[0], arguments, results)
            jump = self.add(Opcode.JUMP, -1)
            self.code[branch] = (Opcode.BRANCH, slot, len(self.code))
            self.invoke(step.functions[1], arguments, results)
            self.code[jump] = (Opcode.JUMP, len(self.code))
        else:
            self.invoke(step.functions[0], arguments, results)
        self.bind(step.binds, results)

    def loop(self, step: CallStep, arguments: list[int], results: list[int]) -> None:
        """`while condition(carried, fixed): carried = body(carried, fixed)`."""
        condition, body = step.functions
        carried = results[: len(results)]
        for target, source in zip(carried, arguments, strict=False):
            self.add(Opcode.MOVE, target, source)
        everything = [*carried, *arguments[len(carried) :]]
        start = len(self.code)
        flag, slot = self.new_register(), self.sizes.new_slot()
        self.invoke(condition, everything, [flag])
        self.add(Opcode.ITEM, slot, flag)
        branch = self.add(Opcode.BRANCH, slot, -1)
        following = [self.new_register() for _ in carried]
        self.invoke(body, everything, following)
        for target, source in zip(carried, following, strict=True):
            self.add(Opcode.MOVE, target, source)
            self.add(Opcode.CLEAR, source)
        self.add(Opcode.JUMP, start)
        self.code[branch] = (Opcode.BRANCH, slot, len(self.code))

    def invoke(self, function: int, arguments: Sequence[int], results: Sequence[int]) -> None:
        """A call of a function."""
        self.add(Opcode.CALL, function, len(arguments), *arguments, len(results), *results)

    def check(self, condition: sympy.Basic, message: str) -> None:
        """Stop with a message unless the condition holds."""
        for symbol in sorted(condition.free_symbols, key=str):
            message = message.replace(f"{{{symbol}}}", f"{{{self.sizes.slot(symbol)}}}")
        self.add(Opcode.CHECK, self.slot(condition), self.tables.message(message))

    def bind(self, binds: Sequence[tuple[str, int, int]], results: Sequence[int]) -> None:
        """Sizes of results become known."""
        for name, index, axis in binds:
            self.add(Opcode.BIND, self.sizes.bind(name), results[index], axis)

    def value(self, item: View | Dim) -> int:
        """The register of an argument or result."""
        if isinstance(item, View):
            return self.view(item)
        register = self.new_register()
        self.add(Opcode.STORE, register, self.slot(item))
        return register

    def result(self, view: View) -> int:
        """A register that a call fills."""
        register = self.new_register()
        self._remember(view, register)
        return register

    def view(self, view: View) -> int:
        """The register that shows a view, made when it is first asked for."""
        key = _key(view)
        if key in self._views:
            return self._views[key]
        buffer = view.buffer
        if buffer.constant is not None and (shaped := _shaped(view, buffer.constant)) is not None:
            register = self.new_register()
            self.add(Opcode.CONSTANT, register, self.tables.constant(buffer.constant, shaped))
            self._place(buffer, register)
            self._views[key] = register
            return register
        if buffer not in self._whole:
            if buffer.kind == "constant":
                assert buffer.constant is not None
                register = self.new_register()
                whole = View(buffer, tuple(buffer.constant.shape), contiguous_strides(tuple(buffer.constant.shape)))
                self.add(Opcode.CONSTANT, register, self.tables.constant(buffer.constant))
            else:
                whole = view if _is_whole(view) else View(buffer, (buffer.elements,), (1,))
                slots = [self.slot(size) for size in whole.sizes]
                register = self.new_register()
                dtype = DTYPES.index(buffer.dtype)
                if buffer.kind == "arena":
                    offset = self.slot(self.plan.offsets[buffer])
                    self.add(Opcode.ALLOC, register, dtype, offset, len(slots), *slots)
                else:
                    self.add(Opcode.NEW, register, dtype, len(slots), *slots)
            self._place(buffer, register)
            self._remember(whole, register)
            if key in self._views:
                return self._views[key]
        offset = self.slot(view.offset)
        slots = [self.slot(size) for size in (*view.sizes, *_plain_strides(view))]
        register = self.new_register()
        self.add(Opcode.VIEW, register, self._whole[buffer], offset, view.rank, *slots)
        self._views[key] = register
        return register

    def slot(self, size: Dim | sympy.Basic) -> int:
        """The slot that holds a size."""
        return self.sizes.slot(size)

    def new_register(self) -> int:
        """A register of its own."""
        self.registers += 1
        return self.registers - 1

    def add(self, *words: int) -> int:
        """Append an instruction, after the code of the sizes that it needs; returns its number."""
        for instruction in (*self.sizes.flush(), tuple(int(word) for word in words)):
            self.code.append(instruction)
            self.labels.append(self._label)
        return len(self.code) - 1

    def _place(self, buffer: Buffer, register: int) -> None:
        """Say where the tensor just made lies, unless it is on the host."""
        if buffer.device != 0:
            self.add(Opcode.PLACE, register, buffer.device)

    def _remember(self, view: View, register: int) -> None:
        self._views[_key(view)] = register
        self._whole[view.buffer] = register

    def _last_uses(self) -> dict[int, list[Buffer]]:
        """For each step the storage that no later step touches."""
        last: dict[Buffer, int] = {}
        for position, step in enumerate(self.block.steps):
            for buffer in [buffer for group in buffers_of(step) for buffer in group]:
                last[buffer] = position
        returned = {item.buffer for item in self.block.results if isinstance(item, View)}
        found: dict[int, list[Buffer]] = {}
        for buffer, position in last.items():
            if buffer.kind == "storage" and buffer not in returned:
                found.setdefault(position, []).append(buffer)
        return found

    def _release(self, position: int) -> None:
        """Drop the registers that show storage of no further use."""
        for buffer in self._last.get(position, ()):
            for key, register in self._views.items():
                if key[0] is buffer:
                    self.add(Opcode.CLEAR, register)


def _key(view: View) -> tuple:
    return (view.buffer, view.sizes, view.strides, view.offset)


def _plain_strides(view: View) -> list[Dim]:
    """Strides; where the size is 1 that of a contiguous tensor, as kernels may ask for, or 1 if it is not static."""
    strides: list[Dim] = []
    following: Dim = 1
    for size, stride in zip(reversed(view.sizes), reversed(view.strides), strict=True):
        if same(size, 1):
            stride = following if isinstance(following, int) else 1
        strides.append(stride)
        following = plain(stride * size)
    return strides[::-1]


def _shaped(view: View, tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The sizes of a view that shows all of a constant in its order, else None."""
    sizes = tuple(size for size in view.sizes if isinstance(size, int))
    whole = len(sizes) == view.rank and math.prod(sizes) == tensor.numel() and view.offset == 0
    return sizes if whole and view.is_contiguous() else None


def _is_whole(view: View) -> bool:
    """Whether a contiguous tensor with the view's sizes is the whole buffer."""
    return view.offset == 0 and view.is_contiguous() and same(product(view.sizes), view.buffer.elements)
