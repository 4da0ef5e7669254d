"""What goes in and comes out: inputs, constants, results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from assembly import F32, Op, flat, integer, kernels, program, session, tensor

from taut.errors import GraphError, GuardError
from taut.runtime import DTYPES


def test_a_result_has_memory_of_its_own() -> None:
    x = torch.randn(2, 3)
    call = session(program([tensor("x", 2, 3)], flat(Op.RETURN, [0])))
    (first,), (second,) = call(x), call(x)
    assert torch.equal(first, x)
    assert len({first.data_ptr(), second.data_ptr(), x.data_ptr()}) == 3


def test_inputs_of_any_strides(library_path: Path) -> None:
    made = program(
        [tensor("x", "n", "m"), tensor("y", "n", "m")],
        flat(Op.BIND, 0, 0, 0),
        flat(Op.BIND, 1, 0, 1),
        flat(Op.NEW, 2, F32, [0, 1]),
        flat(Op.KERNEL, 0, [0, 1, 2]),
        flat(Op.RETURN, [2]),
        kernels=kernels("add"),
    )
    call = session(made, library_path)
    wide = torch.randn(6, 8)
    for x in (wide.t(), wide[::2, 1:4], wide[1:2].expand(5, 8), wide[:, :1].expand(6, 3), wide[:0], wide[:1, :1]):
        y = torch.randn(x.shape)
        assert torch.equal(call(x, y)[0], x + y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_constants_and_results_of_every_dtype(dtype: torch.dtype) -> None:
    value = torch.arange(-3, 5).to(dtype).reshape(2, 4)
    call = session(program([], flat(Op.CONSTANT, 0, 0), flat(Op.RETURN, [0]), constants=(value,)))
    (result,) = call()
    assert result.dtype is dtype
    assert torch.equal(result, value)
    assert result.data_ptr() != value.data_ptr()


def test_a_result_that_is_a_constant_is_a_copy() -> None:
    for value in (torch.ones(2, 3), torch.ones(3, 2).t()):
        call = session(program([], flat(Op.CONSTANT, 0, 0), flat(Op.RETURN, [0]), constants=(value,)))
        call()[0].fill_(7)
        assert torch.equal(call()[0], torch.ones(2, 3))


@pytest.mark.parametrize(
    "value", [torch.zeros(2, dtype=torch.complex64), torch.zeros(2, device="meta"), torch.zeros((1,) * 9)]
)
def test_a_constant_that_no_register_holds_is_refused(value: torch.Tensor) -> None:
    with pytest.raises(GraphError, match="constant 0"):
        session(program([], flat(Op.CONSTANT, 0, 0), flat(Op.RETURN, [0]), constants=(value,)))


def test_parameters_of_a_module_are_constants() -> None:
    weight = torch.nn.Parameter(torch.randn(3))
    (result,) = session(program([], flat(Op.CONSTANT, 0, 0), flat(Op.RETURN, [0]), constants=(weight,)))()
    assert torch.equal(result, weight)
    assert not result.requires_grad


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (torch.zeros(2, 4), r"x: is float32 \(2, 4\)"),
        (torch.zeros(3), r"x: is float32 \(3,\)"),
        (torch.zeros(2, 3, dtype=torch.float64), r"x: is float64 \(2, 3\)"),
        (torch.zeros(2, 3, requires_grad=True), "requires a gradient"),
        (torch.zeros(2, 3, dtype=torch.complex64), "a dtype that programs do not take"),
        (torch.zeros(2, 3, device="meta"), "x: "),
        (torch.zeros(2, 3).to_sparse(), "x: "),
        (torch.zeros(1, 1, 1, 1, 1, 1, 1, 1, 1), "9 dimensions"),
        (3, "x: is a int"),
        (None, "x: is a NoneType"),
    ],
)
def test_an_input_that_does_not_fit_is_named(value: Any, problem: str) -> None:
    call = session(program([tensor("x", 2, 3)], flat(Op.RETURN, [0])))
    with pytest.raises(GuardError, match=problem):
        call(value)
    with pytest.raises(GuardError, match="given 2 inputs"):
        call(value, value)


def test_integers_of_any_size_are_checked() -> None:
    call = session(program([integer("n")], flat(Op.RETURN, [0])))
    assert call(-(2**63)) == [-(2**63)]
    for value in (2**63, 1.5, torch.tensor(1)):
        with pytest.raises(GuardError, match="n: got"):
            call(value)
