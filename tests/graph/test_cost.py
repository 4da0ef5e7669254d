"""Costs of single operations: exact bytes, and loops whose length the graph tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from taut.errors import GraphError
from taut.graph import (
    Builder,
    Graph,
    Interpreter,
    Node,
    OperationCost,
    Ref,
    ScalarType,
    SymbolRange,
    TensorType,
    evaluate,
    graph_cost,
    operation_cost,
)
from taut.graph._cost import _MACS
from taut.graph._symbols import symbol
from taut.numerics import encode, get_format

T = symbol("s0")
ROWS = TensorType((T, 8), torch.float32)
INDEX = TensorType((), torch.int64)


def cost_at(graph: Graph, length: int = 10) -> tuple[int, int, int, int]:
    cost = operation_cost(graph, graph.nodes[-1])
    sizes = {"s0": length}
    return (
        evaluate(cost.macs, sizes),
        cost.parameters,
        evaluate(cost.bytes_read, sizes),
        evaluate(cost.bytes_written, sizes),
    )


def single(op: str, *args: Any, outputs: TensorType, **constants: torch.Tensor) -> Graph:
    """One operation on an input and constants; arguments that are names stand for constants."""
    builder = Builder()
    x = builder.input("x", ROWS)
    refs = {name: builder.constant(tensor, name, buffer=name == "ids") for name, tensor in constants.items()}
    values = [x if item == "x" else refs.get(item, item) if isinstance(item, str) else item for item in args]
    return builder.finish(builder.add(op, *values, outputs=outputs))


def test_a_linear_layer_reads_inputs_weights_and_bias() -> None:
    out = TensorType((T, 16), torch.float32)
    graph = single("aten.linear.default", "x", "w", "b", outputs=out, w=torch.ones(16, 8), b=torch.ones(16))
    assert cost_at(graph) == (10 * 16 * 8, 16 * 8 + 16, 4 * (10 * 8 + 16 * 8 + 16), 4 * 10 * 16)


def test_a_view_moves_nothing() -> None:
    graph = single("aten.transpose.int", "x", 0, 1, outputs=TensorType((8, T), torch.float32))
    assert cost_at(graph) == (0, 0, 0, 0)


def test_a_gather_reads_the_rows_it_takes() -> None:
    ids, table = torch.zeros(5, dtype=torch.int64), torch.ones(1000, 8)
    out = TensorType((5, 8), torch.float32)
    graph = single("aten.embedding.default", "table", "ids", outputs=out, table=table, ids=ids)
    assert cost_at(graph) == (0, 8000, 5 * 8 + 5 * 8 * 4, 5 * 8 * 4)


def test_a_lookup_in_an_encoded_table_reads_the_bytes_of_its_rows() -> None:
    form = get_format("vsq4-v16-s4")
    encoded = encode(torch.ones(1000, 24), form)
    builder = Builder()
    ids = builder.input("ids", TensorType((T,), torch.int64))
    buffers = tuple(builder.constant(buffer, name) for name, buffer in encoded.buffers.items())
    out = TensorType((T, 24), torch.float32)
    graph = builder.finish(
        builder.add("taut.encoded_embedding.default", ids, buffers, form.name, (1000, 24), outputs=out)
    )
    assert encoded.nbytes == 1000 * (12 + 1 + 4)
    assert cost_at(graph) == (0, encoded.nbytes, 10 * (8 + 12 + 1 + 4), 10 * 24 * 4)


def test_an_encoded_weight_is_decoded_before_the_graph_runs() -> None:
    form = get_format("int8-channel")
    encoded = encode(torch.ones(16, 8), form)
    builder = Builder()
    x = builder.input("x", ROWS)
    buffers = tuple(builder.constant(buffer, name) for name, buffer in encoded.buffers.items())
    kind = TensorType((16, 8), torch.float32)
    weight = builder.add("taut.decode.default", buffers, form.name, (16, 8), outputs=kind)
    product = builder.add("aten.linear.default", x, weight, outputs=TensorType((T, 16), torch.float32))
    graph = builder.finish((product, weight))
    assert cost_at(graph) == (10 * 16 * 8, 0, 4 * (10 * 8 + 16 * 8), 4 * 10 * 16)
    assert evaluate(operation_cost(graph, graph.nodes[weight.node]).bytes_read, {}) == 0
    run = Interpreter(graph)
    with torch.inference_mode():
        run(torch.ones(10, 8))[1].zero_()  # what the caller gets is the caller's
    assert torch.equal(run(torch.ones(10, 8))[1], encoded.decode())


def test_a_packed_convolution_multiplies_channels_by_window() -> None:
    node = Node(1, "taut.int8_convolution.default", (Ref(0), None, None, None, (3, 5)), outputs=(_image(4, 16),))
    graph = Graph((Node(0, "input", ("x",), outputs=(_image(4, 12),)), node), (0,), Ref(1))
    assert _MACS["int8_convolution"](graph, node) == 4 * 16 * 8 * 8 * 12 * 3 * 5


def _image(batch: int, channels: int) -> TensorType:
    return TensorType((batch, channels, 8, 8), torch.float32)


def test_an_operand_used_twice_is_read_once() -> None:
    assert cost_at(single("aten.mul.Tensor", "x", "x", outputs=ROWS)) == (0, 0, 320, 320)


def test_a_buffer_is_read_but_is_no_parameter() -> None:
    ids = torch.zeros(8)
    assert cost_at(single("aten.add.Tensor", "x", "ids", outputs=ROWS, ids=ids)) == (0, 0, 320 + 32, 320)


def loop(comparison: str, step: int, start: torch.Tensor | int, bound: Any, *, known: bool = True) -> Graph:
    """A loop whose body multiplies an (8, 8) matrix by itself, counting from `start` by `step` up to `bound`."""
    matrix = TensorType((8, 8), torch.float32)
    counter = ScalarType("int") if isinstance(start, int) else INDEX
    kind = "sym" if isinstance(start, int) else "aten"
    flag = ScalarType("bool") if kind == "sym" else TensorType((), torch.bool)

    def region(which: str) -> Graph:
        builder = Builder()
        i, m = builder.input("i", counter), builder.input("m", matrix)
        n = builder.input("n", ScalarType("int", T))
        if which == "condition":
            limit = n if bound is None else bound
            return builder.finish(builder.add(f"{kind}.{comparison}", i, limit, outputs=flag))
        grown = builder.add("sym.add" if kind == "sym" else "aten.add.Tensor", i, step, outputs=counter)
        return builder.finish((grown if known else i, builder.add("aten.mm.default", m, m, outputs=matrix)))

    builder = Builder()
    x, m = builder.input("x", ROWS), builder.input("m", matrix)
    n = builder.add("aten.sym_size.int", x, 0, outputs=ScalarType("int", T))
    first = start if isinstance(start, int) else builder.constant(start, "start", buffer=True)
    made = builder.add(
        "while_loop", (first, m), (n,), outputs=(counter, matrix), regions=(region("condition"), region("body"))
    )
    return builder.finish(made, symbols={"s0": SymbolRange(2, None)})


@pytest.mark.parametrize(
    ("graph", "trips"),
    [
        (loop("lt.Scalar", 1, torch.tensor(0), None), 10),
        (loop("le.Scalar", 1, torch.tensor(0), None), 11),
        (loop("lt.Scalar", 3, torch.tensor(1), None), 3),
        (loop("lt.Scalar", 4, torch.tensor(1), None), 3),
        (loop("lt", 2, 0, None), 5),
        (loop("le", 1, 3, 7), 5),
        (loop("lt", 1, 9, 7), 0),
        (loop("lt", 1, 20, None), 0),
    ],
)
def test_a_counting_loop_costs_its_body_times_its_trips(graph: Graph, trips: int) -> None:
    cost = graph_cost(graph)
    assert cost.exact
    assert evaluate(cost.macs, {"s0": 10}) == trips * 8**3


@pytest.mark.parametrize("graph", [loop("lt", 1, 0, None, known=False), loop("gt.Scalar", 1, torch.tensor(0), None)])
def test_a_loop_of_unknown_length_counts_once_and_says_so(graph: Graph) -> None:
    cost: OperationCost = graph_cost(graph)
    assert not cost.exact
    assert cost.macs == 8**3


def test_shapes_that_an_operator_cannot_take_are_named() -> None:
    builder = Builder()
    scalar = builder.input("x", TensorType((), torch.float32))
    graph = builder.finish(builder.add("aten.mm.default", scalar, scalar, outputs=builder.value_type(scalar)))
    with pytest.raises(GraphError, match=r"%1 aten\.mm\.default has arguments of shapes"):
        graph_cost(graph)
