"""Functions over tensors and trees, composed of cells: calls, branches and recursion become code of the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from taut.compile._builder_body import Body, Cell, Procedure, Value
from taut.compile._builder_code import Code, RowType
from taut.compile._builder_link import Linker, LowerGraph, lower_to_fallback
from taut.compile._generate import Progress, generate, library_of
from taut.compile._model import generate_all
from taut.compile._prepare import prepare
from taut.compile._program import lower
from taut.errors import ArgumentError
from taut.graph import Graph, TensorType, capture
from taut.runtime import Opcode, Parameter, Program, Session, load


class ProgramBuilder:
    """Composes cells to programs with branches and recursion over tuples, lists and trees.

    Source: Shen et al., "Nimble" (MLSys 2021), section 3, for recursion over algebraic data types in the machine.
    """

    def cell(self, name: str, module: nn.Module, examples: tuple[Tensor, ...]) -> Cell:
        """Capture a module once, over a batch of any size.

        Args:
            name: for people.
            module: takes tensors and returns a tensor or a tuple of tensors, rows independent of each other.
            examples: its inputs with a batch of 2 or more rows in the first dimension; other sizes are fixed.

        Raises:
            ExportError: torch.export refuses the module.
            ArgumentError: an example has no rows, or an output has no batch or a size that varies.
        """
        for position, example in enumerate(examples):
            if example.dim() == 0 or example.shape[0] < 2:
                raise ArgumentError(
                    f"examples[{position}]", f"shape {tuple(example.shape)}", expected="2 or more rows, the batch"
                )
        dynamic = tuple({0: torch.export.Dim.DYNAMIC} for _ in examples)
        graph = capture(module, examples, dynamic_shapes=(dynamic,) if _is_variadic(module) else dynamic)
        # Tracing begins at 2 rows; with rows that do not depend on each other the graph holds for any number.
        symbols = {name: dataclasses.replace(limits, lower=0) for name, limits in graph.symbols.items()}
        graph = dataclasses.replace(graph, symbols=symbols, guards=())
        inputs = tuple(RowType(tuple(example.shape[1:]), example.dtype) for example in examples)
        return Cell(name, graph, inputs, tuple(_row_type(name, graph.value_type(ref)) for ref in graph.output_refs))

    def procedure(self, name: str, *, parameters: int, results: int) -> Callable[[Callable[..., Any]], Procedure]:
        """A decorator for the body of a function: `def encode(body, tree): ... return values`."""
        return lambda body: Procedure(name, parameters, results, body)

    def program(
        self, entry: Procedure, parameters: tuple[Parameter, ...], *, lower: LowerGraph = lower_to_fallback
    ) -> Program:
        """The program whose entry is a procedure.

        Args:
            entry: called from outside.
            parameters: what it takes.
            lower: makes code of a cell; by default a cell runs on ATen.

        Raises:
            ArgumentError: a body returns another number of values than its procedure declares.
        """
        if len(parameters) != entry.parameters:
            raise ArgumentError("parameters", len(parameters), expected=f"{entry.parameters} of {entry.name}")
        linker = Linker()
        numbers: dict[Cell | Procedure, int] = {}
        waiting: list[Procedure] = []

        def number_of(target: Cell | Procedure) -> int:
            if target not in numbers:
                if isinstance(target, Cell):
                    numbers[target] = linker.add(lower(target.graph))
                else:
                    numbers[target] = linker.reserve()
                    waiting.append(target)
            return numbers[target]

        number_of(entry)
        while waiting:
            procedure = waiting.pop()
            code = Code(procedure.name, procedure.parameters, procedure.results)
            arguments = [Value(position) for position in range(procedure.parameters)]
            body = Body(code, number_of, linker)
            returned = procedure.body(body, *arguments)
            values = (returned,) if isinstance(returned, Value) else tuple(returned)
            if len(values) != procedure.results:
                raise ArgumentError(
                    f"results of {procedure.name}", f"{len(values)} values", expected=f"{procedure.results}"
                )
            code.add(Opcode.RETURN, len(values), *(value.register for value in values))
            linker.functions[numbers[procedure]] = code.function()
        return linker.program(parameters, entry.results)

    def compile(
        self, entry: Procedure, parameters: tuple[Parameter, ...], *, progress: Progress | None = None
    ) -> Session:
        """The program of a procedure with generated kernels, ready to be called.

        Args:
            entry: called from outside.
            parameters: what it takes.
            progress: called as kernels are generated.

        Returns:
            The session: `session(Object(tag, fields)) -> [value, ...]`.

        Raises:
            ArgumentError: a body returns another number of values than its procedure declares.
            MissingExtraError: if the extra "compile" is not installed.
        """
        program = self.program(entry, parameters, lower=_lower_generated)
        return load(program, library_of(program, generate(program, progress))).session()


def _lower_generated(graph: Graph) -> Program:
    """A cell's program; what cannot be generated runs on ATen."""
    prepared = prepare(graph)
    return generate_all(prepared, lower(prepared))[0].program


def _is_variadic(module: nn.Module) -> bool:
    """Whether forward takes `*args`, which export names as one."""
    code = module.forward.__code__
    return bool(code.co_flags & 4)


def _row_type(name: str, kind: Any) -> RowType:
    sizes = [size for size in kind.shape[1:] if isinstance(size, int)] if isinstance(kind, TensorType) else []
    if not isinstance(kind, TensorType) or len(sizes) != len(kind.shape) - 1:
        raise ArgumentError(
            f"cell {name}", f"an output {kind}", expected="tensors whose first dimension alone, the batch, may vary"
        )
    return RowType(tuple(sizes), kind.dtype)
