"""Linking: functions of several programs become one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from taut.graph import Graph, Node, Ref, TensorType
from taut.runtime import Function, Instruction, Kernel, Opcode, Parameter, Program


class Linker:
    """Collects functions with their constants, kernels, fallbacks and messages."""

    def __init__(self) -> None:
        self.functions: list[Function | None] = []
        self.constants: list[torch.Tensor] = []
        self.kernels: list[Kernel] = []
        self.fallbacks: list[Graph] = []
        self.messages: list[str] = []

    def reserve(self) -> int:
        """The number of a function that is defined later."""
        self.functions.append(None)
        return len(self.functions) - 1

    def message(self, text: str) -> int:
        """The number of a message."""
        self.messages.append(text)
        return len(self.messages) - 1

    def kernel(self, kernel: Kernel) -> int:
        """The number of a kernel."""
        if kernel not in self.kernels:
            self.kernels.append(kernel)
        return self.kernels.index(kernel)

    def add(self, program: Program) -> int:
        """Take a program over; returns the number of its function 0."""
        bases = {
            Opcode.CALL: len(self.functions),
            Opcode.CONSTANT: len(self.constants),
            Opcode.KERNEL: len(self.kernels),
            Opcode.FALLBACK: len(self.fallbacks),
            Opcode.CHECK: len(self.messages),
        }
        self.functions += [_shifted(function, bases) for function in program.functions]
        self.constants += program.constants
        self.kernels += program.kernels
        self.fallbacks += program.fallbacks
        self.messages += program.messages
        return bases[Opcode.CALL]

    def program(self, parameters: tuple[Parameter, ...], results: int) -> Program:
        """The program, whose entry is function 0."""
        return Program(
            tuple(function for function in self.functions if function is not None),
            parameters,
            tuple(Ref(position) for position in range(results)),
            tuple(self.constants),
            tuple(self.kernels),
            tuple(self.fallbacks),
            tuple(self.messages),
        )


def _shifted(function: Function, bases: dict[Opcode, int]) -> Function:
    """The function with the numbers of what it refers to moved by the bases."""
    places = {Opcode.CALL: 1, Opcode.CONSTANT: 2, Opcode.KERNEL: 1, Opcode.FALLBACK: 1, Opcode.CHECK: 2}

    def shift(instruction: Instruction) -> Instruction:
        opcode = Opcode(instruction[0])
        if opcode not in places:
            return instruction
        words = list(instruction)
        words[places[opcode]] += bases[opcode]
        return tuple(words)

    return dataclasses.replace(function, instructions=tuple(shift(item) for item in function.instructions))


LowerGraph = Callable[[Graph], Program]
"""Makes a program of a graph whose inputs and outputs are tensors: one function 0, and what it needs."""


def lower_to_fallback(graph: Graph) -> Program:
    """A program that runs the whole graph on ATen."""
    fixed = [node for node in graph.nodes if node.op == "constant"]
    nodes = list(graph.nodes)
    for node in fixed:
        nodes[node.id] = dataclasses.replace(node, op="input", args=(f"constant{node.id}",))
    inputs = (*graph.inputs, *(node.id for node in fixed))
    region = dataclasses.replace(graph, nodes=tuple(nodes), inputs=inputs, constants={}, outputs=graph.output_refs)
    parameters = len(graph.inputs)
    results = range(len(inputs), len(inputs) + len(graph.output_refs))
    code: list[Instruction] = [(Opcode.CONSTANT, parameters + number, number) for number in range(len(fixed))]
    code.append((Opcode.FALLBACK, 0, len(inputs), *range(len(inputs)), len(results), *results))
    code.append((Opcode.RETURN, len(results), *results))
    function = Function("cell", parameters, len(results), results.stop, 0, tuple(code), (), ("",) * len(code))
    return Program(
        (function,),
        tuple(_parameter(graph.nodes[node]) for node in graph.inputs),
        tuple(Ref(position) for position in range(len(results))),
        tuple(graph.constants[str(node.args[0])] for node in fixed),
        fallbacks=(region,),
    )


def _parameter(node: Node) -> Parameter:
    kind = node.outputs[0]
    assert isinstance(kind, TensorType)
    shape = tuple(size if isinstance(size, int) else str(size) for size in kind.shape)
    return Parameter(str(node.args[0]), "tensor", kind.dtype, shape)
