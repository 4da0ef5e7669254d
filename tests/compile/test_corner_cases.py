"""Graphs that random search found: each was lowered wrongly once."""

from collections.abc import Callable

import pytest
import torch
from block_reference import run
from fuzz_draft import Fact
from fuzz_graphs import differences

from taut.compile import compile_model
from taut.compile._program import lower
from taut.graph import Builder, Dim, Graph, Interpreter, Ref, ScalarType, SymbolRange, TensorType, symbol

S = symbol("s0")
F32 = torch.float32


def tensor(*shape: Dim, dtype: torch.dtype = F32) -> TensorType:
    return TensorType(shape, dtype)


def check(graph: Graph, *shapes: tuple[int, ...]) -> None:
    """The blocks give what the interpreter gives."""
    inputs = [torch.randn(shape) for shape in shapes]
    wanted = Interpreter(graph)(*inputs)
    found = run(lower(graph).blocks, inputs)
    assert not differences(found, list(wanted), (1e-5,) * len(found))


def test_temporary_constants_keep_their_values() -> None:
    builder = Builder()
    x = builder.input("x", tensor(2, S))
    padded = builder.add("aten.pad.default", x, (0, 0, 1, 1), "constant", 2.0, outputs=tensor(4, S))
    zeros = [builder.add("aten.zeros.default", (6 + more,), outputs=tensor(6 + more)) for more in range(4)]
    check(builder.finish((padded, *zeros), symbols={"s0": SymbolRange(1, 4)}), (2, 3))


@pytest.mark.parametrize(
    ("op", "axes", "shape", "result"),
    [
        ("amin", (-3, -1), (2, 0, 3), (0,)),
        ("sum", (0, 1), (8, 0), ()),
        ("mean", (0, 2), (0, 1, 0, 2), (1, 2)),
        ("sum", (1,), (8, 0), (8,)),
    ],
)
def test_empty_reductions(op: str, axes: tuple[int, ...], shape: tuple[int, ...], result: tuple[int, ...]) -> None:
    builder = Builder()
    x = builder.input("x", tensor(*shape))
    name = f"aten.{op}.{ {'amin': 'default', 'sum': 'dim_IntList', 'mean': 'dim'}[op] }"
    check(builder.finish((builder.add(name, x, axes, False, outputs=tensor(*result)),)), shape)


def test_empty_operands_broadcast() -> None:
    builder = Builder()
    x, y = builder.input("x", tensor(S, 8, 1)), builder.input("y", tensor(S, 8, 0))
    total = builder.add("aten.add.Tensor", x, y, outputs=tensor(S, 8, 0))
    square = builder.add("aten.matmul.default", y, builder.constant(torch.ones(0, 3), "w"), outputs=tensor(S, 8, 3))
    for size in (0, 2):
        check(builder.finish((total, square), symbols={"s0": SymbolRange(0, 4)}), (size, 8, 1), (size, 8, 0))


def test_a_row_whose_operands_all_repeat_one_element() -> None:
    builder = Builder()
    x = builder.input("x", tensor(6, S))
    size = builder.add("aten.sym_size.int", x, 1, outputs=ScalarType("int", S))
    full = builder.add("aten.full.default", (6, size), 2.5, outputs=tensor(6, S))
    double = builder.add("aten.add.Tensor", full, full, outputs=tensor(6, S))
    total = builder.add("aten.sum.dim_IntList", double, (1,), True, outputs=tensor(6, 1))
    half = builder.add("aten.mean.dim", double, (0, 1), outputs=tensor())
    check(builder.finish((total, half), symbols={"s0": SymbolRange(1, 8)}), (6, 5))


def square(builder: Builder) -> Ref:
    """A value of (s0 * s0,), which alone does not tell s0."""
    x = builder.input("x", tensor(S, S))
    return builder.add("aten.reshape.default", x, (-1,), outputs=tensor(S * S))


def in_a_loop(builder: Builder, x: Ref) -> Ref:
    start = builder.constant(torch.tensor(0), "start")
    kinds = (TensorType((), torch.int64), tensor(S * S))
    condition, body = Builder(), Builder()
    count, _ = condition.input("i", kinds[0]), condition.input("x", kinds[1])
    going = condition.add("aten.lt.Scalar", count, 3, outputs=TensorType((), torch.bool))
    count, carried = body.input("i", kinds[0]), body.input("x", kinds[1])
    following = body.add("aten.add.Tensor", count, 1, outputs=kinds[0])
    half = body.add("aten.mul.Tensor", carried, 0.5, outputs=kinds[1])
    regions = (condition.finish((going,)), body.finish((following, half)))
    return Ref(builder.add("while_loop", (start, x), (), outputs=kinds, regions=regions).node, 1)


def on_aten(builder: Builder, x: Ref) -> Ref:
    return builder.add("aten.cumsum.default", x, 0, outputs=tensor(S * S))


@pytest.mark.parametrize("use", [in_a_loop, on_aten])
def test_a_size_that_does_not_tell_its_symbol(use: Callable[[Builder, Ref], Ref]) -> None:
    builder = Builder()
    graph = builder.finish((use(builder, square(builder)),), symbols={"s0": SymbolRange(1, 8)})
    check(graph, (3, 3))


def test_indices_of_32_bits() -> None:
    builder = Builder()
    x = builder.input("x", tensor(2, 3))
    indices = builder.add(
        "aten._to_copy.default", x, kwargs={"dtype": torch.int32}, outputs=tensor(2, 3, dtype=torch.int32)
    )
    inside = builder.add("aten.clamp.default", indices, 0, 4, outputs=tensor(2, 3, dtype=torch.int32))
    table = builder.constant(torch.randn(5, 4), "table")
    graph = builder.finish((builder.add("aten.embedding.default", table, inside, outputs=tensor(2, 3, 4)),))
    check(graph, (2, 3))
    assert not any(kernel.name == "embedding" for kernel in lower(graph).program.kernels)


def test_exact_sums_stay_exact_and_rounded_ones_are_bounded() -> None:
    coarse, rounded = Fact(1.0, 0.0, 0.5), Fact(2.0)
    assert (coarse + coarse).error == 0
    assert (coarse * coarse).step == 0.25
    assert 0 < (rounded + coarse).tolerance < 1e-5
    assert coarse.summed(1 << 24).error > 0


@pytest.mark.parametrize("length", [2, 5, 40])
def test_a_row_of_one_value_is_as_long_as_the_result(length: int) -> None:
    class Uniform(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            zeros = torch.zeros(2, x.shape[0])
            return zeros.softmax(1), zeros.softmax(0), x[:, :1].expand(-1, 3).softmax(1)

    example, dynamic = torch.randn(4, 3), {0: torch.export.Dim("T", min=2, max=64)}
    model = compile_model(Uniform().eval(), (example,), dynamic_shapes=(dynamic,))
    x = torch.randn(length, 3)
    for found, wanted in zip(model(x), Uniform()(x), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_comparison_after_a_pool_is_a_kernel_of_its_own() -> None:
    class Compared(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.max_pool2d(x, 2) > 0.5

    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(compile_model(Compared().eval(), (x,))(x), Compared()(x))
