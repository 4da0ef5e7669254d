"""Programs that run: loading, sessions, libraries of generated kernels."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from taut.codegen import Recipe
from taut.errors import ArgumentError, GraphError, TautError
from taut.graph import Graph, Interpreter, Ref, Tree
from taut.runtime._native import _vm
from taut.runtime._program import DTYPES, MAX_RANK, MAX_WORKERS, Function, Kernel, Parameter, Program
from taut.runtime._races import check_races

_UNLIMITED = 2**62
_NUMBERS = {dtype: number for number, dtype in enumerate(DTYPES)}
_KINDS = ("tensor", "int", "object")


class Library(Protocol):
    """Where the kernels of a program that are generated from recipes come from."""

    def address(self, kernel: int) -> int:
        """The address of a function `int f(void** arguments)` that runs kernel number `kernel`.

        The arguments are pointers to buffers as Halide lays them out; the function returns 0 for success.
        """
        ...


class SharedLibrary:
    """Kernels in a shared library, which stays loaded until the process ends.

    Args:
        path: the library.
        symbols: the names of the functions by the number of the kernel; those ending in `_argv` of Halide's objects.
    """

    def __init__(self, path: str | Path, symbols: Mapping[int, str] | Sequence[str | None]) -> None:
        self._path = str(Path(path).absolute())
        self._symbols = dict(symbols if isinstance(symbols, Mapping) else enumerate(symbols))

    def address(self, kernel: int) -> int:
        """The address of a kernel.

        Raises:
            KernelError: if the library cannot be loaded or lacks the function.
        """
        symbol = self._symbols.get(kernel)
        if symbol is None:
            raise ArgumentError("symbols", sorted(self._symbols), expected=f"a name for kernel {kernel}")
        return _vm.library_address(self._path, symbol)


@dataclasses.dataclass(frozen=True, slots=True)
class InstructionTime:
    """How often an instruction ran in a call, and for how long.

    Attributes:
        function: number of the function.
        instruction: number of the instruction in it.
        calls: how often it ran.
        nanoseconds: wall-clock time of all of these, without the functions that it calls.
    """

    function: int
    instruction: int
    calls: int
    nanoseconds: int


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """One run of an instruction that computes.

    Attributes:
        worker: the thread that ran it; 0 is the caller's.
        function: number of the function.
        instruction: number of the instruction in it.
        begin: nanoseconds after the start of the call.
        end: nanoseconds after the start of the call.
    """

    worker: int
    function: int
    instruction: int
    begin: int
    end: int


class Session:
    """Calls a program; several threads may do so at once, and run in parallel.

    A call gives its results in the order of RETURN of function 0: tensors of their own memory, integers, `Object`s.
    """

    def __init__(self, native: _vm.Session) -> None:
        self._native = native

    def __call__(self, *inputs: Any) -> list[Any]:
        """Run the program.

        Args:
            inputs: one for each parameter: CPU tensors of any strides that need no gradient, integers, and `Object`s,
                tuples or lists of these.

        Returns:
            The results; none shares memory with an input, a constant or another call.

        Raises:
            GuardError: if an input does not fit, or a check of the program fails.
            GraphError: if the program does what it may not do, or exceeds a limit on recursion or steps.
            KernelError: if a kernel fails, or memory is exhausted.
        """
        return self._native(*inputs)

    def profile(self, *inputs: Any) -> list[InstructionTime]:
        """Run once and time each instruction that runs; raises as a call does.

        After a call with the same sizes there is less to run: what follows from sizes alone is there already.
        """
        return [InstructionTime(*entry) for entry in self._native.profile(*inputs)[0]]

    def timeline(self, *inputs: Any) -> list[Span]:
        """Run once and tell when each kernel, copy and fallback ran, and where; raises as a call does."""
        return sorted((Span(*span) for span in self._native.profile(*inputs)[1]), key=lambda span: span.begin)

    def time(self, inputs: Sequence[Any], repeats: int) -> float:
        """Seconds that one call takes without Python: the inputs are read once and the results stay native.

        Args:
            inputs: as for a call.
            repeats: how many calls to time, at least 1.

        Returns:
            The wall-clock time of all calls, divided by their number.
        """
        if repeats < 1:
            raise ArgumentError("repeats", repeats, expected="1 or more")
        return self._native.time(repeats, *inputs)


def regions_run_alone() -> int:
    """How many parallel regions of programs this process has run on the caller's thread alone.

    The workers were with another call then, or rested after they had to share their cores with other processes.
    """
    return _vm.refused_leases()


def worker_seconds() -> float:
    """CPU seconds that the workers of this process have used so far, those in which they waited for work included."""
    return _vm.worker_nanoseconds() * 1e-9


class Executable:
    """A verified program, ready to run.

    Attributes:
        program: what was loaded.
    """

    def __init__(self, program: Program, native: _vm.Executable) -> None:
        self.program = program
        self._native = native

    def session(
        self,
        *,
        memory_limit: int | None = None,
        recursion_limit: int = 10_000,
        step_limit: int | None = None,
        poison: bool = False,
        workers: int | None = None,
    ) -> Session:
        """A new session.

        Args:
            memory_limit: bytes that all programs of the process together may hold; by default what the machine has.
            recursion_limit: how deep calls may nest.
            step_limit: how many jumps and calls one run may take; None for any number.
            poison: whether new memory is filled with NaN, which shows reads of what was never written.
            workers: threads that a call may use where the program is parallel, with its own; by default as many as the
                program asks for and this process has CPUs. They belong to the process: a call that finds them taken
                runs on its own thread.

        Raises:
            ArgumentError: if a limit is out of range.
        """
        memory = _physical_memory() if memory_limit is None else memory_limit
        steps = _UNLIMITED if step_limit is None else step_limit
        for name, value in (("memory_limit", memory), ("recursion_limit", recursion_limit), ("step_limit", steps)):
            if not 0 < value <= _UNLIMITED:
                raise ArgumentError(name, value, expected=f"1 to {_UNLIMITED}")
        if workers is not None and not 0 < workers <= MAX_WORKERS:
            raise ArgumentError("workers", workers, expected=f"1 to {MAX_WORKERS}")
        threads = MAX_WORKERS if workers is None else workers
        return Session(_vm.Session(self._native, memory, recursion_limit, steps, poison, threads))


def load(program: Program, library: Library | None = None) -> Executable:
    """Verify a program and make it ready to run.

    Args:
        program: the program; may come from a file of unknown origin.
        library: the kernels that are generated from recipes; not needed where all are prebuilt.

    Returns:
        The executable.

    Raises:
        GraphError: if the program is malformed; nothing of it has run then.
        KernelError: if the library lacks a kernel.
    """
    return Executable(program, _load(program, library))


def verify(program: Program) -> None:
    """Check a program as `load` does, without its kernels.

    Args:
        program: the program.

    Raises:
        GraphError: saying what is wrong and where.
    """
    _load(program, _NoLibrary())


class _NoLibrary:
    """Stands in where nothing will run."""

    def address(self, kernel: int) -> int:
        return 0


def _load(program: Program, library: Library | None) -> _vm.Executable:
    results = program.functions[0].results if program.functions else 0
    for leaf in _leaves(program.outputs):
        if leaf.output != 0 or not 0 <= leaf.node < results:
            raise GraphError(f"the outputs refer to result {leaf.node}", expected=f"one of {results} results")
    fallbacks = [_Fallback(graph) for graph in program.fallbacks]
    loaded = _vm.load(
        [_function(function) for function in program.functions],
        [_parameter(parameter) for parameter in program.parameters],
        [_constant(number, tensor) for number, tensor in enumerate(program.constants)],
        [_kernel(number, kernel, library) for number, kernel in enumerate(program.kernels)],
        [(len(graph.inputs), len(graph.output_refs)) for graph in program.fallbacks],
        list(program.messages),
        lambda number, inputs: fallbacks[number](inputs),
    )
    check_races(program)  # of a program that is well-formed
    return loaded


class _Fallback:
    """A graph as a function from a list of values to a tuple of values."""

    def __init__(self, graph: Graph) -> None:
        if graph.constants:
            raise GraphError("a fallback graph has constants", expected="inputs in their place")
        # Without a dot each name is an argument of its own.
        names = {node: (f"input{position}",) for position, node in enumerate(graph.inputs)}
        nodes = tuple(dataclasses.replace(node, args=names.get(node.id, node.args)) for node in graph.nodes)
        self._run = Interpreter(dataclasses.replace(graph, nodes=nodes, outputs=graph.output_refs))

    def __call__(self, inputs: list[Any]) -> tuple[Any, ...]:
        try:
            return self._run(*inputs)
        except TautError as error:
            # Frames would keep tensors in memory that the machine takes back.
            inputs.clear()
            error.__context__ = None
            raise error.with_traceback(None) from None


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _leaves(tree: Tree) -> Iterator[Ref]:
    if isinstance(tree, Ref):
        yield tree
    elif isinstance(tree, (tuple, list, Mapping)):
        for item in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _leaves(item)


def _function(function: Function) -> tuple[Any, ...]:
    return tuple(getattr(function, field.name) for field in dataclasses.fields(function))


def _parameter(parameter: Parameter) -> tuple[Any, ...]:
    if parameter.kind not in _KINDS:
        raise GraphError(f"parameter {parameter.name} is of the kind {parameter.kind!r}", expected=", ".join(_KINDS))
    if parameter.kind != "tensor":
        return parameter.name, parameter.kind, 0, (), ""
    number = _dtype(parameter.dtype, f"parameter {parameter.name}")
    _rank(len(parameter.shape), f"parameter {parameter.name}")
    sizes = [size if isinstance(size, int) else -1 for size in parameter.shape]
    if any(isinstance(size, int) and size < 0 for size in parameter.shape):
        raise GraphError(f"parameter {parameter.name} has the shape {parameter.shape}", expected="sizes of 0 or more")
    shape = f"({', '.join(map(str, parameter.shape))}{',' if len(sizes) == 1 else ''})"
    return parameter.name, parameter.kind, number, sizes, f"{str(parameter.dtype).removeprefix('torch.')} {shape}"


def _constant(number: int, tensor: torch.Tensor) -> torch.Tensor:
    _dtype(tensor.dtype, f"constant {number}")
    _rank(tensor.dim(), f"constant {number}")
    if tensor.device.type != "cpu":
        raise GraphError(f"constant {number} is on {tensor.device}", expected="the CPU")
    return tensor.detach()


def _kernel(number: int, kernel: Kernel, library: Library | None) -> tuple[Any, ...]:
    where = f"kernel {number} ({kernel.name})"
    operands = []
    for operand in kernel.operands:
        _rank(operand.rank, where)
        operands.append((_dtype(operand.dtype, where), operand.rank, operand.written))
    if kernel.recipe is None:
        return kernel.name, operands, None
    if not _agrees(kernel, kernel.recipe):
        raise GraphError(f"{where} has other operands than its recipe", expected="equal dtypes, ranks and outputs")
    if library is None:
        raise GraphError(f"{where} is generated from a recipe", expected="a library that holds it")
    return kernel.name, operands, library.address(number)


def _agrees(kernel: Kernel, recipe: Recipe) -> bool:
    """Whether the operands that the machine checks are those that the generated code works on."""
    inputs = len(recipe.operands) - recipe.outputs
    return len(kernel.operands) == len(recipe.operands) and all(
        str(declared.dtype) == f"torch.{generated.dtype}"
        and declared.rank == len(generated.shape)
        and declared.written >= (position >= inputs)
        for position, (declared, generated) in enumerate(zip(kernel.operands, recipe.operands, strict=True))
    )


def _dtype(dtype: torch.dtype | None, where: str) -> int:
    if dtype not in _NUMBERS:
        raise GraphError(f"{where} has the dtype {dtype}", expected=", ".join(map(str, DTYPES)))
    return _NUMBERS[dtype]


def _rank(rank: int, where: str) -> None:
    if type(rank) is not int or not 0 <= rank <= MAX_RANK:
        raise GraphError(f"{where} has {rank} dimensions", expected=f"0 to {MAX_RANK}")
