"""The recipe: all that generating one kernel needs, as plain data, without weights and without machine code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

Expression = tuple[tuple[Any, ...], ...]
"""A computation on elements: entries that use earlier ones by number; the last is the result.

("accumulator",)            what the template has summed for this element of the output
("operand", i)              the element of operand i that aligns with that of the output; static sizes of 1 broadcast
("constant", value)         a float or an integer
(unary, a)                  neg abs exp log sqrt rsqrt reciprocal tanh sigmoid erf gelu gelu_tanh relu silu sin cos
                            floor ceil round sign not
(binary, a, b)              add sub mul div maximum minimum pow lt le gt ge eq ne and or remainder
("where", c, a, b)          a where c holds, else b
("cast", dtype, a)          conversion
(row_sum | row_max | row_min, a)   over the innermost dimension; the result broadcasts along it (template "map")
"""

HEAVY = frozenset({"exp", "log", "tanh", "sigmoid", "erf", "gelu", "gelu_tanh", "silu", "sin", "cos", "pow"})
"""Operations that take many instructions."""


def is_heavy(expression: Expression) -> bool:
    """Whether an expression takes so many instructions that copies of it should be few.

    The template "linear" computes such an expression in a second pass over its output, when the first has written all
    of that: no operand may lie there.
    """
    return any(entry[0] in HEAVY for entry in expression)


@dataclasses.dataclass(frozen=True, slots=True)
class Operand:
    """A buffer that a kernel reads or writes.

    Attributes:
        dtype: "float32", "bfloat16", "int64", "int32", "int8", "uint8" or "bool".
        shape: a size where it is known when the kernel is generated, else None; outermost first.
        dense: whether the innermost stride is 1; other strides are always free.
    """

    dtype: str
    shape: tuple[int | None, ...]
    dense: bool = True


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one kernel is generated.

    Attributes:
        template: the name of the template, e.g. "map" or "linear".
        operands: inputs, then outputs.
        outputs: how many operands at the end are outputs.
        parameters: what the template asks for.
        expression: what happens to each element before it is stored.
    """

    template: str
    operands: tuple[Operand, ...]
    outputs: int = 1
    parameters: Mapping[str, int | float | bool | str] = dataclasses.field(default_factory=dict)
    expression: Expression = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "template": self.template,
            "operands": [[operand.dtype, list(operand.shape), operand.dense] for operand in self.operands],
            "outputs": self.outputs,
            "parameters": dict(sorted(self.parameters.items())),
            "expression": [list(entry) for entry in self.expression],
        }

    @classmethod
    def from_dict(cls, text: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote."""
        return cls(
            text["template"],
            tuple(Operand(dtype, tuple(shape), dense) for dtype, shape, dense in text["operands"]),
            text["outputs"],
            text["parameters"],
            tuple(tuple(entry) for entry in text["expression"]),
        )

    @property
    def key(self) -> str:
        """A hash of the content (32 hex digits), stable across processes."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:32]
