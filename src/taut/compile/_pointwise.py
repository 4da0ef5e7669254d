"""Operators that treat each element alone, as expressions of kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from taut.compile._constants import scalar_constant
from taut.graph import Argument, Graph, Node, Ref, ScalarType, TensorType

DTYPES = {
    torch.float32: "float32",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.uint8: "uint8",
    torch.int8: "int8",
    torch.bool: "bool",
}
"""What generated kernels compute with."""


class Unsupported(Exception):  # noqa: N818 - no error: the node goes another way
    """The node is no expression that kernels know."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A value inside an expression."""

    entry: int
    dtype: torch.dtype


@dataclasses.dataclass
class Expressions:
    """An expression under construction; entries that are equal are shared."""

    entries: list[tuple] = dataclasses.field(default_factory=list)

    def add(self, *entry: object) -> int:
        """The number of an entry."""
        if entry in self.entries:
            return self.entries.index(entry)
        self.entries.append(entry)
        return len(self.entries) - 1

    def cast_last(self, value: Value, dtype: torch.dtype) -> None:
        """Make a value the last entry, which is the result."""
        if value.entry != len(self.entries) - 1 or value.dtype != dtype:
            self.entries.append(("cast", DTYPES[dtype], value.entry))


Operand = Callable[[Ref], Value]
"""Gives the value of a tensor argument."""

_UNARY = {
    name: name
    for name in ("neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "erf", "relu", "silu")
} | {"sin": "sin", "cos": "cos", "floor": "floor", "ceil": "ceil", "round": "round", "sign": "sign"}
_ANY_DTYPE = frozenset({"neg", "abs", "relu", "sign", "floor", "ceil", "round"})
_BINARY = {"add": "add", "sub": "sub", "mul": "mul", "maximum": "maximum", "minimum": "minimum"}
_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_LOGICAL = {
    "logical_and": "and",
    "logical_or": "or",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "__and__": "and",
    "__or__": "or",
}


def is_pointwise(graph: Graph, node: Node) -> bool:
    """Whether `expression` knows the node, with arguments of dtypes that kernels compute with."""
    types = [graph.value_type(ref) for ref in node.inputs]
    if len(node.outputs) != 1 or not isinstance(node.outputs[0], TensorType) or not node.op.startswith("aten."):
        return False
    if any(isinstance(kind, ScalarType) and kind.expression is None for kind in types):
        return False
    tensors = [kind for kind in (*types, *node.outputs) if isinstance(kind, TensorType)]
    if any(kind.dtype not in DTYPES for kind in tensors):
        return False
    try:
        expression(graph, node, Expressions(), lambda ref: Value(0, _dtype(graph, ref)))
    except Unsupported:
        return False
    return True


def expression(graph: Graph, node: Node, made: Expressions, operand: Operand) -> Value:
    """Append the node's computation.

    Raises:
        Unsupported: if it is no expression.
    """
    name = node.op.split(".")[1]
    handler = _HANDLERS.get(name)
    if handler is None:
        raise Unsupported(node.op)
    return handler(_Context(graph, node, made, operand))


@dataclasses.dataclass(frozen=True)
class _Context:
    graph: Graph
    node: Node
    made: Expressions
    operand: Operand

    @property
    def name(self) -> str:
        return self.node.op.split(".")[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.node.type.dtype

    def argument(self, position: int, name: str = "", default: Argument = None) -> Argument:
        """An argument by position or keyword."""
        if position < len(self.node.args):
            return self.node.args[position]
        return self.node.keyword(name, default)

    def value(self, argument: Argument, dtype: torch.dtype | None = None) -> Value:
        """An argument's value, converted to a dtype."""
        constant = argument if isinstance(argument, (bool, int, float)) else scalar_constant(self.graph, argument)
        if constant is not None:
            return self.constant(constant, dtype or _literal_dtype(constant))
        if not isinstance(argument, Ref) or not isinstance(self.graph.value_type(argument), TensorType):
            raise Unsupported(self.node.op)
        return self.cast(self.operand(argument), dtype)

    def constant(self, value: bool | int | float, dtype: torch.dtype) -> Value:
        """A literal."""
        if dtype.is_floating_point:
            return Value(self.made.add("constant", float(value)), dtype)
        if not isinstance(value, (bool, int)):
            raise Unsupported(f"{value} as {dtype}")
        return self.cast(Value(self.made.add("constant", int(value)), torch.int32), dtype, literal=True)

    def cast(self, value: Value, dtype: torch.dtype | None, *, literal: bool = False) -> Value:
        """A conversion, where one is needed."""
        if dtype is None or (value.dtype == dtype and not literal):
            return value
        if dtype not in DTYPES:
            raise Unsupported(str(dtype))
        return Value(self.made.add("cast", DTYPES[dtype], value.entry), dtype)

    def apply(self, op: str, *values: Value, dtype: torch.dtype | None = None) -> Value:
        """An operation on values."""
        return Value(self.made.add(op, *(value.entry for value in values)), dtype or values[-1].dtype)

    def common(self) -> torch.dtype:
        """The dtype in which a comparison is made."""
        found = [self.argument(0), self.argument(1)]
        kinds = [
            torch.empty((1,) * len(self.graph.value_type(item).shape), dtype=_dtype(self.graph, item), device="meta")  # pyright: ignore
            if isinstance(item, Ref) and isinstance(self.graph.value_type(item), TensorType)
            else item
            for item in found
        ]
        if any(isinstance(item, Ref) or item is None for item in kinds):
            raise Unsupported(self.node.op)
        return torch.result_type(*kinds)  # pyright: ignore


def _unary(at: _Context) -> Value:
    if at.dtype != torch.float32 and at.name not in _ANY_DTYPE:
        raise Unsupported(at.node.op)
    if at.dtype == torch.bool or (at.name == "round" and len(at.node.args) + len(at.node.kwargs) > 1):
        raise Unsupported(at.node.op)
    value = at.value(at.argument(0), at.dtype)
    if not at.dtype.is_floating_point and at.name in ("floor", "ceil", "round"):
        return value
    return at.apply(_UNARY[at.name], value)


def _gelu(at: _Context) -> Value:
    _require_float(at)
    approximate = at.argument(1, "approximate", "none")
    return at.apply("gelu_tanh" if approximate == "tanh" else "gelu", at.value(at.argument(0)))


def _binary(at: _Context) -> Value:
    if at.dtype == torch.bool:
        raise Unsupported(at.node.op)
    a, b = at.value(at.argument(0), at.dtype), at.value(at.argument(1), at.dtype)
    alpha = at.argument(2, "alpha", 1)
    if alpha != 1:
        b = at.apply("mul", b, at.value(alpha, at.dtype))
    return at.apply(_BINARY[at.name], a, b)


def _divide(at: _Context) -> Value:
    _require_float(at)
    if at.argument(2, "rounding_mode") is not None:
        raise Unsupported(at.node.op)
    return at.apply("div", at.value(at.argument(0), at.dtype), at.value(at.argument(1), at.dtype))


def _power(at: _Context) -> Value:
    _require_float(at)
    base, exponent = at.argument(0), at.argument(1)
    if not isinstance(base, Ref):
        raise Unsupported(at.node.op)
    x = at.value(base, at.dtype)
    if exponent == 2:
        return at.apply("mul", x, x)
    if exponent == 3:
        return at.apply("mul", at.apply("mul", x, x), x)
    if exponent == 0.5:
        return at.apply("sqrt", x)
    if exponent == -1:
        return at.apply("reciprocal", x)
    raise Unsupported(at.node.op)


def _compare(at: _Context) -> Value:
    common = at.common()
    if common not in DTYPES:
        raise Unsupported(at.node.op)
    a, b = (at.value(at.argument(position), common) for position in (0, 1))
    if common == torch.bool:
        a, b = at.cast(a, torch.uint8), at.cast(b, torch.uint8)
    return at.apply(at.name, a, b, dtype=torch.bool)


def _logical(at: _Context) -> Value:
    if any(_dtype(at.graph, ref) != torch.bool for ref in at.node.inputs) or at.dtype != torch.bool:
        raise Unsupported(at.node.op)
    return at.apply(_LOGICAL[at.name], at.value(at.argument(0)), at.value(at.argument(1), torch.bool))


def _not(at: _Context) -> Value:
    if any(_dtype(at.graph, ref) != torch.bool for ref in at.node.inputs):
        raise Unsupported(at.node.op)
    return at.apply("not", at.value(at.argument(0)))


def _where(at: _Context) -> Value:
    chosen, a, b = at.argument(0), at.argument(1), at.argument(2)
    if a is None or _dtype(at.graph, chosen) != torch.bool:
        raise Unsupported(at.node.op)
    return at.apply("where", at.value(chosen), at.value(a, at.dtype), at.value(b, at.dtype))


def _masked_fill(at: _Context) -> Value:
    value = at.argument(2)
    return at.apply("where", at.value(at.argument(1)), at.value(value, at.dtype), at.value(at.argument(0), at.dtype))


def _clamp(at: _Context) -> Value:
    value = at.value(at.argument(0), at.dtype)
    low, high = at.argument(1, "min"), at.argument(2, "max")
    if at.name == "clamp_max":
        low, high = None, at.argument(1, "max")
    if at.name == "relu6":
        low, high = 0, 6
    if at.name == "hardtanh":
        low, high = at.argument(1, "min_val", -1), at.argument(2, "max_val", 1)
    # The limit comes first: NaN of the value passes through, as the second operand wins there.
    if low is not None:
        value = at.apply("maximum", at.value(low, at.dtype), value)
    if high is not None:
        value = at.apply("minimum", at.value(high, at.dtype), value)
    return value


def _hardsigmoid(at: _Context) -> Value:
    _require_float(at)
    x = at.value(at.argument(0))
    shifted = at.apply("add", x, at.constant(3.0, at.dtype))
    clamped = at.apply("minimum", at.constant(6.0, at.dtype), at.apply("maximum", at.constant(0.0, at.dtype), shifted))
    sixth = at.apply("mul", clamped, at.constant(1 / 6, at.dtype))
    return sixth if at.name == "hardsigmoid" else at.apply("mul", x, sixth)


def _leaky(at: _Context) -> Value:
    _require_float(at)
    x = at.value(at.argument(0))
    slope = at.value(at.argument(1, "negative_slope", 0.01), at.dtype)
    return at.apply(
        "where", at.apply("gt", x, at.constant(0.0, at.dtype), dtype=torch.bool), x, at.apply("mul", x, slope)
    )


def _convert(at: _Context) -> Value:
    return at.cast(at.value(at.argument(0)), at.dtype)


def _square(at: _Context) -> Value:
    x = at.value(at.argument(0))
    return at.apply("mul", x, x)


def _require_float(at: _Context) -> None:
    if at.dtype != torch.float32:
        raise Unsupported(at.node.op)


def _dtype(graph: Graph, argument: Argument) -> torch.dtype:
    kind = graph.value_type(argument) if isinstance(argument, Ref) else None
    return kind.dtype if isinstance(kind, TensorType) else torch.int64


def _literal_dtype(value: float) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.int64 if isinstance(value, int) else torch.float32


_HANDLERS: dict[str, Callable[[_Context], Value]] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys(_LOGICAL, _logical),
    **dict.fromkeys(("to", "_to_copy"), _convert),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "relu6", "hardtanh"), _clamp),
    **dict.fromkeys(("hardsigmoid", "hardswish"), _hardsigmoid),
    "gelu": _gelu,
    "div": _divide,
    "pow": _power,
    "square": _square,
    "logical_not": _not,
    "bitwise_not": _not,
    "where": _where,
    "masked_fill": _masked_fill,
    "leaky_relu": _leaky,
}
"""By the name of the ATen operator."""
