"""The interpreter: the model's own signature, checks before work, no state between calls."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import pytest
import sympy
import torch
from torch import nn
from torch.export import Dim

from taut.errors import ArgumentError, GraphError, GuardError
from taut.graph import Builder, Graph, Guard, Interpreter, Ref, ScalarType, SymbolRange, TensorType, bind_sizes, capture
from taut.graph._policy import resolve
from taut.graph._shortcuts import SHORTCUTS
from taut.graph._symbols import symbol

VECTOR = TensorType((4,), torch.float32)
FLAG = TensorType((), torch.bool)


class Nested(nn.Module):
    """Nested arguments, a number, an optional argument, and a nested result."""

    def forward(
        self, x: torch.Tensor, batch: dict[str, Any], scale: int = 2, mask: torch.Tensor | None = None
    ) -> dict[str, Any]:
        first, second = batch["pair"]
        y = x + first * scale - second
        return {"y": y if mask is None else y * mask, "parts": [first + 1, (batch["extra"] * 2, None)], "count": 3}


@pytest.fixture(scope="module")
def nested() -> Interpreter:
    x = torch.randn(3, 4)
    batch = {"pair": (x, x), "extra": x}  # one tensor given several times is still several arguments
    return Interpreter(capture(Nested(), (x,), {"batch": batch, "scale": 3}))


def _batch() -> dict[str, Any]:
    return {"extra": torch.randn(3, 4), "pair": (torch.randn(3, 4), torch.randn(3, 4))}


def test_arguments_go_by_position_or_by_name_in_any_order(nested: Interpreter) -> None:
    x, batch = torch.randn(3, 4), _batch()
    expected = Nested()(x, batch, 3)
    assert list(expected) == ["y", "parts", "count"]
    for result in (nested(x, batch, 3), nested(x, batch=batch, scale=3), nested(scale=3, mask=None, batch=batch, x=x)):
        torch.testing.assert_close(result["y"], expected["y"], rtol=0, atol=0)
        torch.testing.assert_close(result["parts"][1][0], expected["parts"][1][0], rtol=0, atol=0)
        assert (type(result["parts"]), result["parts"][1][1], result["count"]) == (list, None, 3)


def test_writing_to_a_result_changes_neither_arguments_nor_weights() -> None:
    class Lends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(4, 3))

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            fresh = torch.tensor([1, 2])
            return [x.clone(), x.view(-1), self.table, self.table[:2].t(), fresh, x + 1, *x.split(2)]

    model, x = Lends(), torch.randn(4, 3)
    expected = [value.detach().clone() for value in model(x)]
    run = Interpreter(capture(model, (x.clone(),)))
    for _ in range(2):  # the second call shows what the first one left behind
        given = x.clone()
        results = run(given)
        torch.testing.assert_close(results, expected, rtol=0, atol=0)
        with torch.inference_mode():
            for result in results:
                result.zero_()
        assert torch.equal(given, x)


def test_a_branch_that_returns_its_operand_lends_nothing() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: x.clone(), lambda x: x * 2, (x,))

    x = torch.ones(4)
    assert Interpreter(capture(Branch(), (x,)))(x).data_ptr() != x.data_ptr()


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((torch.ones(3, 4), _batch(), 4), {}, "scale is 4, but the graph was captured for 3"),
        ((torch.ones(3, 4), _batch(), 3.0), {}, "scale is 3.0\nexpected: a Python int"),
        ((torch.ones(3, 4), _batch()), {}, "scale is missing"),
        (
            (torch.ones(3, 4), {"pair": (torch.ones(3, 4),), "extra": torch.ones(3, 4)}, 3),
            {},
            "batch.pair.1 is missing",
        ),
        ((torch.ones(3, 4), _batch(), 3), {"weights": 1}, "weights is unknown"),
        ((torch.ones(3, 4), _batch(), 3), {"x": torch.ones(3, 4)}, "x was given twice"),
        ((torch.ones(3, 4), _batch(), 3, None, 5), {}, "takes 3 arguments and got 4"),
        ((torch.ones(3, 5), _batch(), 3), {}, r"x: dimension 1 is 5\nexpected: 4"),
        ((torch.ones(3), _batch(), 3), {}, "x has 1 dimensions"),
        ((torch.ones(3, 4).double(), _batch(), 3), {}, r"x has dtype torch.float64\nexpected: torch.float32"),
        ((7, _batch(), 3), {}, "x is a int"),
    ],
)
def test_wrong_arguments_are_named(nested: Interpreter, args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(GuardError, match=message):
        nested(*args, **kwargs)


class Shared(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.unflatten(0, (-1, 3)).sum(1) * y[0, 0]


def test_equal_and_divisible_sizes_are_checked() -> None:
    n = Dim("n", min=2, max=30)
    graph = capture(Shared(), (torch.randn(6), torch.randn(2, 6)), dynamic_shapes=({0: 3 * n}, {1: Dim.AUTO}))
    assert bind_sizes(graph, torch.randn(9), torch.randn(2, 5)) == {"s0": 3, "s1": 5}
    with pytest.raises(GuardError, match=r"x: dimension 0 is 10\nexpected: 3\*s0 with 2 <= s0 <= 30"):
        Interpreter(graph)(torch.randn(10), torch.randn(2, 5))


def test_a_guard_over_two_symbols_is_checked() -> None:
    s0, s1 = symbol("s0"), symbol("s1")
    builder = Builder()
    x = builder.input("x", TensorType((s0, s1), torch.float32))
    y = builder.input("y", TensorType((s0, s0 * s1), torch.float32))
    ranges = {"s0": SymbolRange(2, None), "s1": SymbolRange(2, None)}
    guard = Guard(s0 < s1, "model.py:3")  # pyright: ignore
    run = Interpreter(builder.finish((x, y), symbols=ranges, guards=(guard,)))
    run(torch.ones(2, 3), torch.ones(2, 6))
    with pytest.raises(GuardError, match=r"violate a guard of the model\nexpected: s0 < s1 \(from model.py:3\)"):
        run(torch.ones(3, 2), torch.ones(3, 6))
    with pytest.raises(GuardError, match=r"y: dimension 0 is 3\nexpected: s0 = 2"):
        run(torch.ones(2, 3), torch.ones(3, 6))
    with pytest.raises(GuardError, match=r"y: dimension 1 is 5\nexpected: s0\*s1 = 6"):
        run(torch.ones(2, 3), torch.ones(2, 5))


def test_a_failing_operator_is_named_with_its_place() -> None:
    builder = Builder()
    x = builder.input("x", VECTOR)
    made = builder.add("aten.reshape.default", x, (3,), outputs=TensorType((3,), torch.float32), source="model.py:7")
    with pytest.raises(GraphError, match=r"node %1 aten.reshape.default \(model.py:7\) failed: .*invalid for input"):
        Interpreter(builder.finish(made))(torch.ones(4))


def test_a_check_whose_value_reaches_no_output_still_runs() -> None:
    builder = Builder()
    x = builder.input("x", VECTOR)
    total = builder.add("aten.sum.default", x, outputs=TensorType((), torch.float32))
    positive = builder.add("aten.gt.Scalar", total, 0, outputs=FLAG)
    builder.add("check", positive, "the sum is positive", outputs=())
    run = Interpreter(builder.finish(x))
    run(torch.ones(4))
    with pytest.raises(GuardError, match="the sum is positive"):
        run(-torch.ones(4))


def test_several_threads_share_an_interpreter(nested: Interpreter) -> None:
    cases = [(torch.randn(3, 4), _batch()) for _ in range(4)]
    expected = [Nested()(x, batch, 3)["y"] for x, batch in cases]
    wrong: list[int] = []

    def work(index: int) -> None:
        x, batch = cases[index]
        wrong.extend(index for _ in range(50) if not torch.equal(nested(x, batch, 3)["y"], expected[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_values_are_released_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    living: list[int] = []

    def item(value: torch.Tensor) -> float:
        living.append(sum(ref() is not None for ref in alive))
        alive.append(weakref.ref(value))
        return 0.0

    monkeypatch.setitem(SHORTCUTS, "aten.item.default", item)
    builder = Builder()
    value = builder.input("x", VECTOR)
    for _ in range(5):
        value = builder.add("aten.add.Tensor", value, 1, outputs=VECTOR)
        builder.add("check", builder.add("aten.item.default", value, outputs=ScalarType("float")), "", outputs=())
    with pytest.raises(GuardError):
        Interpreter(builder.finish(value))(torch.ones(4))
    monkeypatch.setitem(SHORTCUTS, "aten.item.default", lambda value: item(value) + 1)
    Interpreter(builder.finish(value))(torch.ones(4))
    assert max(living) <= 1


def test_a_profile_times_each_operation(nested: Interpreter) -> None:
    seconds = nested.profile(torch.randn(3, 4), _batch(), 3)
    expected = {node.id for node in nested.graph.nodes if node.op not in ("input", "constant")}
    assert seconds.keys() == expected
    assert all(value > 0 for value in seconds.values())


def test_keyword_arguments_may_be_values() -> None:
    builder = Builder()
    x = builder.input("x", VECTOR)
    total = builder.add("aten.sum.default", x, outputs=TensorType((), torch.float32))
    value = builder.add("aten.item.default", total, outputs=ScalarType("float"))
    made = builder.add("aten.add.Tensor", x, x, kwargs={"alpha": value}, outputs=VECTOR)
    assert Interpreter(builder.finish(made))(torch.ones(4)).tolist() == [5, 5, 5, 5]


def test_constants_and_factories_go_to_the_given_device() -> None:
    builder = Builder()
    zeros = builder.add("aten.zeros.default", (4,), kwargs={"device": torch.device("cpu")}, outputs=VECTOR)
    made = builder.add("aten.add.Tensor", builder.constant(torch.ones(4), "one"), zeros, outputs=VECTOR)
    assert Interpreter(builder.finish(made), device="meta")().device.type == "meta"


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"taut\.graph\.capture"):
        Interpreter(nn.Linear(1, 1))  # pyright: ignore


def _region(count: int, op: str, *, results: int = 1) -> Graph:
    """A region that folds its inputs with an operator."""
    builder = Builder()
    inputs = [builder.input(f"x{index}", VECTOR) for index in range(count)]
    made = inputs[0]
    for other in inputs[1:]:
        made = builder.add(op, made, other, outputs=VECTOR)
    made = made if count > 1 else builder.add("aten.neg.default", made, outputs=VECTOR)
    return builder.finish((made,) * results)


def _run(
    op: str, region: Graph, *groups: tuple[str, ...], outputs: tuple[TensorType, ...], **tensors: torch.Tensor
) -> Any:
    builder = Builder()
    refs = {name: builder.input(name, TensorType(tuple(x.shape), x.dtype)) for name, x in tensors.items()}
    made = builder.add(
        op, *(tuple(refs[name] for name in group) for group in groups), outputs=outputs, regions=(region,)
    )
    graph = builder.finish(tuple(Ref(made.node, index) for index in range(len(outputs))))
    return Interpreter(graph)(**tensors)


def test_control_flow_operations_equal_plain_loops() -> None:
    table, start = torch.randn(5, 4), torch.randn(4)
    rows = TensorType((5, 4), torch.float32)
    (mapped,) = _run("map", _region(2, "aten.mul.Tensor"), ("x",), ("y",), outputs=(rows,), x=table, y=start)
    torch.testing.assert_close(mapped, table * start)
    carried, history = _run(
        "scan", _region(2, "aten.add.Tensor", results=2), ("c",), ("x",), (), outputs=(VECTOR, rows), c=start, x=table
    )
    torch.testing.assert_close(history, start + table.cumsum(0))
    torch.testing.assert_close(carried, history[-1])
    batched = Builder()
    pair = [batched.input(name, TensorType((symbol("u0"), 4), torch.float32)) for name in "ab"]
    combine = batched.finish(
        (batched.add("aten.mul.Tensor", *pair, outputs=rows),), symbols={"u0": SymbolRange(1, None)}
    )
    for length in (1, 2, 5):
        (product,) = _run("associative_scan", combine, ("x",), (), outputs=(rows,), x=table[:length])
        torch.testing.assert_close(product, table[:length].cumprod(0))
    (negated,) = _run("invoke_subgraph", _region(1, ""), ("x",), outputs=(VECTOR,), x=start)
    torch.testing.assert_close(negated, -start)


def test_shortcuts_take_every_argument_of_their_operator() -> None:
    """With defaults spelled out, and an alternative for each keyword."""
    x, w, b = torch.randn(2, 4, 6, 6), torch.randn(4, 4, 3, 3), torch.randn(4)
    t, m, ids = torch.randn(2, 5, 4), torch.randn(4, 4), torch.tensor([[1, 2], [3, 0]])
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "aten.sym_size.int": ((x, 1), {}),
        "aten.item.default": ((torch.tensor(2.5),), {}),
        "aten.sym_numel.default": ((x,), {}),
        "aten.add.Tensor": ((t, 3), {"alpha": 2}),
        "aten.sub.Tensor": ((t, t), {"alpha": 0.5}),
        "aten.mul.Tensor": ((t, 1.5), {}),
        "aten.div.Tensor": ((t, 3), {}),
        "aten.relu.default": ((t,), {}),
        "aten.sigmoid.default": ((t,), {}),
        "aten.tanh.default": ((t,), {}),
        "aten.reshape.default": ((t, [2, -1]), {}),
        "aten.transpose.int": ((t, -1, 0), {}),
        "aten.permute.default": ((t, [2, 0, 1]), {}),
        "aten.select.int": ((t, 1, -1), {}),
        "aten.unsqueeze.default": ((t, -1), {}),
        "aten.squeeze.dim": ((t[:1], 0), {}),
        "aten.cat.default": (([t, t], -1), {}),
        "aten.matmul.default": ((t, m), {}),
        "aten.embedding.default": ((m, ids, 0, False, False), {}),
        "aten.layer_norm.default": ((t, [4], b, None, 1e-3, False), {}),
        "aten.batch_norm.default": ((x, b, None, b, b.abs(), False, 0.1, 1e-3, True), {}),
        "aten.conv2d.default": ((x, w, b, [2, 1], [1, 0], [1, 1], 1), {}),
        "aten.conv2d.padding": ((x, w, None, [1, 1], "same", [1, 1], 1), {}),
        "aten.linear.default": ((t, m, b), {}),
        "aten.gelu.default": ((t,), {"approximate": "tanh"}),
        "aten.scaled_dot_product_attention.default": ((t, t, t, None, 0.0, True), {"scale": 0.3, "enable_gqa": False}),
    }
    assert calls.keys() == SHORTCUTS.keys()
    for op, (args, kwargs) in calls.items():
        torch.testing.assert_close(SHORTCUTS[op](*args, **kwargs), resolve(op)(*args, **kwargs), rtol=0, atol=0)


def test_a_size_that_no_input_tells_is_refused_before_any_call() -> None:
    builder = Builder()
    size = TensorType((2 * symbol("s0") * symbol("s1"),), torch.float32)
    x = builder.input("x", size)
    symbols = {"s0": SymbolRange(2, 9), "s1": SymbolRange(2, 9)}
    graph = builder.finish(builder.add("aten.relu.default", x, outputs=size), symbols=symbols)
    with pytest.raises(GraphError, match=r"uses the symbol s[01], which no input's size tells"):
        Interpreter(graph)


def test_a_guard_that_is_not_defined_at_a_size_is_an_error_of_the_input() -> None:
    builder = Builder()
    s0 = symbol("s0")
    kind = TensorType((s0,), torch.float32)
    ref = builder.add("aten.relu.default", builder.input("x", kind), outputs=kind)
    guard = Guard(sympy.Eq(sympy.Mod(12, s0 - 2), 0))
    run = Interpreter(builder.finish(ref, symbols={"s0": SymbolRange(2, 9)}, guards=(guard,)))
    assert run(torch.ones(5)).shape == (5,)
    with pytest.raises(GuardError, match="not defined for these inputs"):
        run(torch.ones(2))
