"""Procedures with branches, recursion and cells, run on the machine and compared with Python."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from taut.compile._builder import ProgramBuilder
from taut.compile._builder_body import Body, Value
from taut.errors import ArgumentError
from taut.runtime import Object, Parameter, Program, load


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.linear(torch.cat([x, h], dim=-1)))


class Double(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + x, x * x


def run(program: Program, *inputs: Any) -> list[Any]:
    return load(program).session(poison=True)(*inputs)


def test_recursion_over_a_list() -> None:
    torch.manual_seed(0)
    module = Step().eval()
    builder = ProgramBuilder()
    step = builder.cell("step", module, (torch.zeros(2, 2), torch.zeros(2, 4)))

    @builder.procedure("scan", parameters=3, results=1)
    def scan(body: Body, items: Value, position: Value, state: Value) -> Any:
        index = body.number(position)

        def more() -> tuple[Value, ...]:
            (following,) = body.call(step, body.field(items, index), state)
            return body.call(scan, items, body.value(index + 1), following)

        return body.branch(index < body.length(items), more, lambda: (state,))

    parameters = (Parameter("items", "object"), Parameter("position", "int"))
    program = builder.program(scan, (*parameters, Parameter("state", "tensor", torch.float32, ("n", 4))))
    executable = load(program).session(poison=True)
    for length in (0, 1, 2, 7):
        items = [torch.randn(1, 2) for _ in range(length)]
        expected = torch.zeros(1, 4)
        with torch.no_grad():
            for item in items:
                expected = module(item, expected)
        (found,) = executable(items, 0, torch.zeros(1, 4))
        torch.testing.assert_close(found, expected)


def test_mutual_recursion_and_numbers() -> None:
    builder = ProgramBuilder()

    @builder.procedure("even", parameters=1, results=1)
    def even(body: Body, value: Value) -> Any:
        number = body.number(value)
        return body.branch(
            number.equals(0),
            lambda: (body.value(number + 1),),
            lambda: body.call(odd, body.value(number - 1)),
        )

    @builder.procedure("odd", parameters=1, results=1)
    def odd(body: Body, value: Value) -> Any:
        number = body.number(value)
        return body.branch(number.equals(0), lambda: (value,), lambda: body.call(even, body.value(number - 1)))

    program = builder.program(even, (Parameter("n", "int"),))
    assert [run(program, n) for n in range(5)] == [[1], [0], [1], [0], [1]]


def test_objects_go_in_and_come_out() -> None:
    builder = ProgramBuilder()
    double = builder.cell("double", Double(), (torch.zeros(2, 3),))

    @builder.procedure("main", parameters=1, results=2)
    def main(body: Body, pair: Value) -> Any:
        twice, square = body.call(double, body.field(pair, 0))
        return body.append(body.object(5, twice), body.field(pair, 1)), square

    program = builder.program(main, (Parameter("pair", "object"),))
    x = torch.randn(2, 3)
    found, square = run(program, (x, 7))
    assert isinstance(found, Object)
    assert found.tag == 5
    assert torch.equal(found.fields[0], x + x)
    assert found.fields[1] == 7
    assert torch.equal(square, x * x)


def test_a_branch_on_data_runs_one_side() -> None:
    builder = ProgramBuilder()
    double = builder.cell("double", Double(), (torch.zeros(2, 3),))

    @builder.procedure("main", parameters=2, results=1)
    def main(body: Body, flag: Value, x: Value) -> Any:
        return body.branch(body.item(flag), lambda: body.call(double, x)[:1], lambda: (x,))

    parameters = (Parameter("flag", "tensor", torch.bool, ()), Parameter("x", "tensor", torch.float32, ("n", 3)))
    program = builder.program(main, parameters)
    x = torch.randn(4, 3)
    assert torch.equal(run(program, torch.tensor(True), x)[0], x + x)
    assert torch.equal(run(program, torch.tensor(False), x)[0], x)


def test_refusals() -> None:
    builder = ProgramBuilder()
    with pytest.raises(ArgumentError, match="2 or more rows"):
        builder.cell("double", Double(), (torch.zeros(1, 3),))
    double = builder.cell("double", Double(), (torch.zeros(2, 3),))
    parameters = (Parameter("x", "tensor", torch.float32, ("n", 3)),)

    def program(results: int, body: Any) -> None:
        builder.program(builder.procedure("main", parameters=1, results=results)(body), parameters)

    with pytest.raises(ArgumentError, match="arguments of double"):
        program(2, lambda body, x: body.call(double, x, x))
    with pytest.raises(ArgumentError, match="results of main"):
        program(1, lambda body, x: body.call(double, x))
    with pytest.raises(ArgumentError, match="otherwise"):
        program(1, lambda body, x: body.branch(body.size(x, 0), lambda: (x,), lambda: (x, x)))
    with pytest.raises(ArgumentError, match=r"body\.branch"):
        program(1, lambda body, x: body.call(double, x) if body.size(x, 0) else x)
    with pytest.raises(ArgumentError, match="parameters"):
        builder.program(builder.procedure("main", parameters=1, results=1)(lambda body, x: x), ())
