"""The program: what the virtual machine runs, as plain data.

A program is a list of functions over registers. A register holds nothing, an integer, a tensor or an object (a tag with
fields: tuples, lists, tree nodes). Sizes live apart from registers, on an int64 heap with numbered slots, one heap for
each activation of a function; shape code, a small stack machine, computes on it. Constants are tensors by number;
kernels are recipes (`taut.codegen`) or names of prebuilt functions, never machine code.

Source: Shen et al., "Nimble" (MLSys 2021), sections 3 and 4, for explicit shapes and memory; the small set of
instructions with everything else in calls follows Relax (Lai et al., "Relax: Composable Abstractions for End-to-End
Dynamic Machine Learning").
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

import torch

from taut.codegen import Recipe
from taut.graph import Graph, Tree

Instruction = tuple[int, ...]
"""An opcode and its words, as `Opcode` describes them."""


class Opcode(enum.IntEnum):
    """Operations of the machine.

    PARALLEL splits the instructions that follow it into tasks, each so many KERNELs and COPYs, with the worker that
    should run it and the numbers of earlier tasks that must be done before. Tasks that nothing orders may run at the
    same time and must not write what another of them touches. In the order of the code they are always right.

    LEVELS lists the nodes of a tree in steps, each all nodes of one height (0 without children) and one case, which
    says which fields are children. The second register becomes an object whose fields are the nodes; the heap's slot
    becomes the number of steps. The first register becomes an int64 tensor: for each step its case, first node, number
    of nodes and the position of its lists; then these lists, for each child the numbers of the nodes that are it.

    In the words, `r` is a register, `s` a slot of the heap, `dtype` a position in `DTYPES`, `pc` the number of an
    instruction in the same function. A list of n items follows its length.
    """

    SHAPE = 0  # start end: run shape_code[start:end]
    ARENA = 1  # s: reserve heap[s] bytes for this activation, 64-byte aligned
    ALLOC = 2  # r dtype s_offset rank s...: contiguous tensor in the arena, heap[s_offset] bytes from its start
    NEW = 3  # r dtype rank s...: contiguous tensor in storage of its own, released with its last reference
    CONSTANT = 4  # r index: constant tensor
    VIEW = 5  # r r_base s_offset rank s_size... s_stride...: offset and strides in elements; checked against the base
    KERNEL = 6  # kernel n r...: call a kernel; its operands are tensors
    FALLBACK = 7  # fallback n r... m r...: run a graph on ATen; n inputs, m results
    BIND = 8  # s r dim: heap[s] = size of a tensor
    ITEM = 9  # s r: heap[s] = value of an integer or bool tensor with one element
    LOAD = 10  # s r: heap[s] = integer register
    STORE = 11  # r s: integer register = heap[s]
    CHECK = 12  # s message: stop with messages[message] if heap[s] is 0
    JUMP = 13  # pc
    BRANCH = 14  # s pc: jump if heap[s] is 0
    CALL = 15  # function n r... m r...: arguments, results
    RETURN = 16  # n r...
    MOVE = 17  # r r: second to first
    CLEAR = 18  # r: drop what it holds
    MAKE = 19  # r tag n r...: object
    FIELD = 20  # r r_object s: field number heap[s]
    TAG = 21  # s r: heap[s] = tag of an object
    LENGTH = 22  # s r: heap[s] = number of fields
    APPEND = 23  # r r_object r: object with one more field
    COPY = 24  # r r: elements of the second into the first, of equal shape and dtype; strides may differ
    TRANSFER = 25  # r r device: copy of the second on a device; other operations stay on one device
    PLACE = 26  # r device: says where the ALLOC, NEW or CONSTANT just before it has its tensor; else 0 without this
    FILL = 27  # r s: heap[s] into each element of a tensor
    PARALLEL = 28  # n tasks: the next instructions on several workers; a task is: instructions worker n task...
    LEVELS = 29  # r r_nodes s r_object n cases: the nodes of a tree by height and case; a case is: tag n field...
    ELEMENT = 30  # s r s_index: heap[s] = an element of an integer or bool tensor with one dimension
    STACK = 31  # r r_nodes s_first field: row i = that field, a tensor, of the object in field heap[s_first] + i


class ShapeCode(enum.IntEnum):
    """Operations of the shape code: words of a stack machine over int64.

    Overflow or division by zero stops the call. The stack holds 64 values at most and is empty at the end of
    each SHAPE.
    """

    PUSH = 0  # value
    LOAD = 1  # s
    STORE = 2  # s
    ADD = 3
    SUB = 4
    MUL = 5
    FLOORDIV = 6
    CEILDIV = 7
    MOD = 8  # sign of the divisor
    MIN = 9
    MAX = 10
    EQ = 11
    NE = 12
    LT = 13
    LE = 14
    GT = 15
    GE = 16
    AND = 17
    OR = 18
    NOT = 19
    SELECT = 20  # condition, then, otherwise


DTYPES: tuple[torch.dtype, ...] = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
"""What a tensor may hold, in the order of the words."""

MAX_RANK = 8
MAX_WORKERS = 256
DEVICE_COUNT = 2
"""Logical devices; both are this host."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of the program.

    A tensor arrives with the stride 1 in its innermost dimension, copied where it had another; the other strides are
    the caller's, except that those of dimensions of size 1 are as in a contiguous tensor.

    Attributes:
        name: as in the model's call, e.g. "features.0".
        kind: "tensor", "int" or "object".
        dtype: of a tensor.
        shape: of a tensor; a size, or the text of an expression over the symbols for messages.
    """

    name: str
    kind: str
    dtype: torch.dtype | None = None
    shape: tuple[int | str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """A function; its arguments arrive in the first registers.

    Attributes:
        name: for people.
        parameters: how many arguments it takes.
        results: how many values it returns.
        registers: how many registers an activation has.
        slots: how many slots its heap has; each is 0 at the start.
        instructions: its code; it ends with RETURN or JUMP.
        shape_code: words of the stack machine.
        labels: for each instruction what it does in the model, e.g. "encoder.0.linear1", or "".
    """

    name: str
    parameters: int
    results: int
    registers: int
    slots: int
    instructions: tuple[Instruction, ...]
    shape_code: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class OperandType:
    """What a kernel takes at one position: a tensor of this dtype and rank, read, or written."""

    dtype: torch.dtype
    rank: int
    written: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel: generated from a recipe, or prebuilt under a name.

    Attributes:
        name: for people; of a prebuilt kernel, the name under which it is found.
        operands: what it takes.
        recipe: how it is generated; None for a prebuilt one.
    """

    name: str
    operands: tuple[OperandType, ...]
    recipe: Recipe | None = None


@dataclasses.dataclass(frozen=True)
class Program:
    """A whole model.

    Attributes:
        functions: number 0 is called from outside.
        parameters: arguments of function 0.
        outputs: the returned structure; each leaf is a `Ref` whose node is the position in RETURN of function 0.
        constants: packed weights and the like.
        kernels: by number.
        fallbacks: graphs that run on ATen, by number.
        messages: texts of failing checks, by number; "{3}" stands for the value of slot 3.
    """

    functions: tuple[Function, ...]
    parameters: tuple[Parameter, ...]
    outputs: Tree
    constants: tuple[torch.Tensor, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    fallbacks: tuple[Graph, ...] = ()
    messages: tuple[str, ...] = ()
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
