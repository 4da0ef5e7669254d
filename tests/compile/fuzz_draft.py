"""Random graphs under construction, with a running error analysis that gives the tolerance of each output.

The tolerance rule: each value carries a bound of its magnitude, and a bound of the rounding error of any float32
evaluation in units of the machine epsilon. An error of 0 means that all evaluations agree to the bit: inputs, integers,
and sums and products of numbers on a coarse grid. Operators that jump (comparisons, floor, conversion to integers) are
applied to such values only. `tolerance` is 16 times the bound of the error: kernels may sum in another order and
approximate functions to a few units in the last place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import hypothesis.strategies as st
import sympy
import torch

from taut.compile._dims import plain
from taut.graph import Builder, Dim, Graph, Ref, ScalarType, SymbolRange, TensorType, evaluate

EPSILON = 2.0**-23
LARGEST = 1e4
"""Float values with a larger bound are not made."""
MOST_ERROR = 2e3
"""In units of epsilon: about 2e-4. Values with a larger error are not made: their comparison would say little."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Fact:
    """What is known of a value.

    Attributes:
        bound: no element is larger in magnitude.
        error: absolute, in units of epsilon; 0 if all evaluations agree.
        step: of which elements are multiples, a power of two; 0 if unknown.
    """

    bound: float
    error: float = 0.0
    step: float = 0.0

    @property
    def tolerance(self) -> float:
        """The largest difference of two evaluations."""
        return 16 * EPSILON * self.error

    def __add__(self, other: Fact) -> Fact:
        return made(self.bound + other.bound, self.error + other.error, min(self.step, other.step))

    def __mul__(self, other: Fact) -> Fact:
        error = self.bound * other.error + other.bound * self.error
        return made(self.bound * other.bound, error, self.step * other.step)

    def __or__(self, other: Fact) -> Fact:
        """One of the two."""
        return Fact(max(self.bound, other.bound), max(self.error, other.error), min(self.step, other.step))

    def summed(self, count: int) -> Fact:
        """The sum of so many."""
        return made(self.bound * count, self.error * count, self.step)

    def through(self, slope: float, bound: float) -> Fact:
        """A smooth function of it."""
        return Fact(bound, self.error * slope + max(bound, 1.0))


def made(bound: float, error: float, step: float) -> Fact:
    """The result of sums and products: exact if it was and the grid is coarse enough."""
    if error == 0 and step > 0 and bound < step * 2**22:
        return Fact(bound, 0.0, step)
    return Fact(bound, error + bound)


@dataclasses.dataclass(frozen=True)
class Item:
    """A value of the graph."""

    ref: Ref
    shape: tuple[Dim, ...]
    dtype: torch.dtype
    fact: Fact

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it holds numbers with a fraction."""
        return self.dtype == torch.float32

    @property
    def exact(self) -> bool:
        """Whether all evaluations agree."""
        return self.fact.error == 0


class Draft:
    """A graph or region under construction.

    Args:
        draw: of the hypothesis strategy.
        symbols: the ranges of the symbols.
        outer: the graph around a region.
    """

    def __init__(self, draw: st.DrawFn, symbols: dict[str, SymbolRange], outer: Draft | None = None) -> None:
        self.draw = draw
        self.symbols = symbols
        self.builder = Builder()
        self.items: list[Item] = []
        self.inputs: list[Item] = []
        self.used: set[Ref] = set()
        self.depth = 0 if outer is None else outer.depth + 1
        self._sizes: dict[Dim, Ref] = {}

    # --- choosing

    def choose(self, options: Sequence[T]) -> T:
        """One of them."""
        return self.draw(st.sampled_from(options))

    def chance(self) -> bool:
        """Heads or tails."""
        return self.draw(st.booleans())

    def integer(self, lower: int, upper: int) -> int:
        """A number of the range, both ends included."""
        return self.draw(st.integers(lower, upper))

    def pick(self, fits: Callable[[Item], bool]) -> Item | None:
        """A value that fits; the latest is the likeliest."""
        found = [item for item in reversed(self.items) if fits(item)]
        return self.choose(found) if found else None

    def pick_float(self, fits: Callable[[Item], bool] = lambda item: True) -> Item | None:
        """A float value that fits."""
        return self.pick(lambda item: item.is_float and fits(item))

    # --- sizes

    def highest(self, *dims: Dim) -> int:
        """The largest number of elements."""
        return evaluate(sympy.prod(dims), {name: limits.upper or 0 for name, limits in self.symbols.items()})

    def lowest(self, *dims: Dim) -> int:
        """The smallest number of elements."""
        return evaluate(sympy.prod(dims), {name: limits.lower for name, limits in self.symbols.items()})

    def size(self, dim: Dim) -> int | Ref:
        """A size as an argument; the symbols are those of inputs."""
        if isinstance(dim, (int, sympy.Integer)):
            return int(dim)
        if dim not in self._sizes:
            if isinstance(dim, sympy.Symbol):
                holder = next(item for item in self.items if dim in item.shape)
                args: tuple[Any, ...] = (holder.ref, holder.shape.index(dim))
                op = "aten.sym_size.int"
            else:
                op = "sym.add" if isinstance(dim, sympy.Add) else "sym.mul"
                if isinstance(dim, sympy.floor):
                    op = "sym.floordiv"
                    first, rest = sympy.fraction(sympy.together(dim.args[0]))
                elif isinstance(dim, sympy.Pow):
                    first, rest = dim.base, dim.base ** (dim.exp - 1)
                else:
                    first, rest = sympy.sympify(dim.args[0]), dim.func(*dim.args[1:])  # pyright: ignore
                args = (self.size(plain(first)), self.size(plain(rest)))
            self._sizes[dim] = self.builder.add(op, *args, outputs=ScalarType("int", dim))
        return self._sizes[dim]

    # --- values

    def input(self, shape: Sequence[Dim], dtype: torch.dtype, fact: Fact) -> Item:
        """An input."""
        ref = self.builder.input(f"x{len(self.inputs)}", TensorType(tuple(shape), dtype))
        return self._keep(Item(ref, tuple(shape), dtype, fact), self.inputs)

    def constant(self, shape: Sequence[int], dtype: torch.dtype = torch.float32, *, coarse: bool | None = None) -> Item:
        """A constant of random content: halves between -1 and 1, or numbers of any kind, or small integers."""
        generator = torch.Generator().manual_seed(self.integer(0, 3))
        tensor, fact = random_tensor(shape, dtype, generator, self.chance() if coarse is None else coarse)
        ref = self.builder.constant(tensor, f"w{len(self.items)}")
        return Item(ref, tuple(shape), dtype, fact)

    def add(
        self,
        op: str,
        *args: Any,
        shape: Sequence[Dim],
        dtype: torch.dtype = torch.float32,
        fact: Fact,
        kwargs: Mapping[str, Any] = MappingProxyType({}),
    ) -> Item | None:
        """Append an operation of one result, unless its magnitude or error would be too large."""
        found = self.add_many(op, *args, outputs=[(shape, dtype, fact)], kwargs=kwargs)
        return found[0] if found else None

    def add_many(
        self,
        op: str,
        *args: Any,
        outputs: Sequence[tuple[Sequence[Dim], torch.dtype, Fact]],
        kwargs: Mapping[str, Any] = MappingProxyType({}),
        regions: tuple[Graph, ...] = (),
    ) -> list[Item]:
        """Append an operation, unless the magnitude or error of a result would be too large."""
        if any(fact.bound > LARGEST or fact.error > MOST_ERROR for _, _, fact in outputs):
            return []
        types = tuple(TensorType(tuple(map(_plain, shape)), dtype) for shape, dtype, _ in outputs)
        plain_kwargs = {name: _argument(value) for name, value in kwargs.items()}
        self.used |= {item.ref for item in _items(args)}
        ref = self.builder.add(op, *map(_argument, args), outputs=types, kwargs=plain_kwargs, regions=regions)
        return [
            self._keep(Item(Ref(ref.node, index), kind.shape, kind.dtype, fact), self.items)
            for index, (kind, (_, _, fact)) in enumerate(zip(types, outputs, strict=True))
        ]

    def _keep(self, item: Item, where: list[Item]) -> Item:
        where.append(item)
        if where is not self.items:
            self.items.append(item)
        return item


def random_tensor(
    shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator, coarse: bool = True
) -> tuple[torch.Tensor, Fact]:
    """A tensor of random content, and what is known of it."""
    if dtype == torch.bool:
        return torch.randint(0, 2, tuple(shape), generator=generator).bool(), Fact(1.0, 0.0, 1.0)
    if not dtype.is_floating_point:
        return torch.randint(-3, 4, tuple(shape), generator=generator, dtype=dtype), Fact(3.0, 0.0, 1.0)
    if coarse:
        return torch.randint(-2, 3, tuple(shape), generator=generator) / 2, Fact(1.0, 0.0, 0.5)
    return torch.rand(tuple(shape), generator=generator) * 4 - 2, Fact(2.0)


def _plain(size: Dim) -> Dim:
    value = sympy.expand(size)
    return int(value) if isinstance(value, sympy.Integer) else value


def _items(value: Any) -> list[Item]:
    if isinstance(value, Item):
        return [value]
    return [item for part in value for item in _items(part)] if isinstance(value, (list, tuple)) else []


def _argument(value: Any) -> Any:
    if isinstance(value, Item):
        return value.ref
    if isinstance(value, (list, tuple)):
        return tuple(_argument(item) for item in value)
    return value
