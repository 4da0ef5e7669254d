"""The measured model times each distinct operator once, on operands that it accepts."""

import pytest
import sympy
import torch
from cost_graphs import linear_graph, pointwise_graph

from taut.cost import Measured, Store
from taut.errors import ArgumentError, MeasurementError
from taut.graph import Builder, Interpreter, Ref, ScalarType, SymbolRange, TensorType


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.sqlite", host="this")


@pytest.fixture
def timed(monkeypatch):
    """The operators that were timed, one entry for each time."""
    found = []
    original = Interpreter.__init__

    def record(self, graph, **options):
        found.extend(node.op for node in graph.nodes if node.op not in ("input", "constant"))
        original(self, graph, **options)

    monkeypatch.setattr(Interpreter, "__init__", record)
    return found


def test_each_node_gets_its_time_and_inputs_get_none(store):
    prediction = Measured(store).predict(linear_graph(4, 8, 16), {}, threads=1)
    assert prediction.seconds[:2] == (0.0, 0.0)
    assert prediction.seconds[2] > 0
    assert (prediction.kind, prediction.total) == ("measured", prediction.seconds[2])


def test_equal_operators_are_timed_once_and_share_the_time(store, timed):
    builder = Builder()
    kind = TensorType((8, 8), torch.float32)
    value = builder.input("x", kind)
    for _ in range(3):
        value = builder.add("aten.relu.default", value, outputs=kind)
    prediction = Measured(store).predict(builder.finish(value), {}, threads=1)
    assert timed == ["aten.relu.default"]
    assert len(set(prediction.seconds[1:])) == 1


def test_times_are_remembered_across_processes_but_not_across_thread_counts(store, timed):
    first = Measured(store).predict(pointwise_graph(16), {}, threads=1)
    again = Measured(Store(store.path, host="this")).predict(pointwise_graph(16), {}, threads=1)
    assert again == first
    assert len(timed) == 1
    Measured(store).predict(pointwise_graph(16), {}, threads=2)
    assert len(timed) == 2


def test_what_was_timed_before_an_interruption_is_kept(store, monkeypatch, timed):
    builder = Builder()
    kind = TensorType((8,), torch.float32)
    x = builder.add("aten.neg.default", builder.input("x", kind), outputs=kind)
    graph = builder.finish(builder.add("aten.abs.default", x, outputs=kind))
    profile = Interpreter.profile

    def interrupted(self, *inputs):
        if any(node.op == "aten.abs.default" for node in self.graph.nodes):
            raise KeyboardInterrupt
        return profile(self, *inputs)

    monkeypatch.setattr(Interpreter, "profile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Measured(store).predict(graph, {}, threads=1)
    monkeypatch.setattr(Interpreter, "profile", profile)
    Measured(store).predict(graph, {}, threads=1)
    assert timed == ["aten.neg.default", "aten.abs.default", "aten.abs.default"]


@pytest.mark.parametrize(
    ("op", "arguments", "result"),
    [
        ("aten.embedding.default", lambda table, rows, _: (table, rows), (5, 4)),
        ("aten.index_select.default", lambda table, rows, _: (table, 0, rows), (5, 4)),
        ("aten.index.Tensor", lambda table, rows, columns: (table, (rows, columns)), (5,)),
        ("aten.gather.default", lambda table, rows, _: (table, 1, Ref(3)), (3, 2)),
    ],
)
def test_made_up_indices_stay_in_range(store, op, arguments, result):
    builder = Builder()
    table = builder.input("table", TensorType((3, 4), torch.float32))
    rows = builder.input("rows", TensorType((5,), torch.int64))
    columns = builder.input("columns", TensorType((5,), torch.int64))
    builder.input("grid", TensorType((3, 2), torch.int64))
    y = builder.add(op, *arguments(table, rows, columns), outputs=TensorType(result, torch.float32))
    assert Measured(store).predict(builder.finish(y), {}, threads=1).total > 0


def test_symbolic_sizes_and_size_arguments_take_their_values(store):
    length = sympy.Symbol("s0", integer=True, nonnegative=True)
    builder = Builder()
    x = builder.input("x", TensorType((length, 6), torch.float32))
    size = builder.add("aten.sym_size.int", x, 0, outputs=ScalarType("int", length))
    y = builder.add("aten.view.default", x, (size, 2, 3), outputs=TensorType((length, 2, 3), torch.float32))
    graph = builder.finish(y, symbols={"s0": SymbolRange(2, 64)})
    prediction = Measured(store).predict(graph, {"s0": 7}, threads=1)
    assert [seconds > 0 for seconds in prediction.seconds] == [False, False, True]


def test_a_number_that_depends_on_data_needs_real_inputs(store):
    builder = Builder()
    kind = TensorType((4,), torch.float32)
    x = builder.input("x", kind)
    number = builder.add(
        "aten.item.default", builder.input("n", TensorType((), torch.float32)), outputs=ScalarType("float")
    )
    graph = builder.finish(builder.add("aten.mul.Scalar", x, number, outputs=kind))
    with pytest.raises(MeasurementError, match="depends on the data") as raised:
        Measured(store).predict(graph, {}, threads=1)
    assert "inputs=" in str(raised.value)
    inputs = (torch.ones(4), torch.tensor(2.0))
    assert Measured(store, inputs=inputs).predict(graph, {}, threads=1).seconds[-1] > 0


def test_an_operator_that_refuses_made_up_operands_is_named(store):
    builder = Builder()
    kind = TensorType((3, 3), torch.float32)
    wrong = builder.add("aten.linalg_cholesky.default", builder.input("x", kind), outputs=kind)
    with pytest.raises(MeasurementError, match="linalg_cholesky"):
        Measured(store).predict(builder.finish(wrong), {}, threads=1)


def test_with_inputs_the_graph_itself_is_timed_and_nothing_is_stored(store):
    graph = linear_graph(4, 8, 16)
    prediction = Measured(store, inputs=(torch.ones(4, 8),)).predict(graph, {}, threads=1)
    assert prediction.model == "interpreter in place"
    assert len(prediction.seconds) == len(graph.nodes)
    assert prediction.seconds[-1] > 0
    assert not store.path.exists()


def test_inputs_and_sizes_that_contradict_each_other_are_refused(store):
    length = sympy.Symbol("s0", integer=True, nonnegative=True)
    builder = Builder()
    kind = TensorType((length,), torch.float32)
    y = builder.add("aten.neg.default", builder.input("x", kind), outputs=kind)
    graph = builder.finish(y, symbols={"s0": SymbolRange(2, 64)})
    with pytest.raises(ArgumentError, match="sizes"):
        Measured(store, inputs=(torch.ones(5),)).predict(graph, {"s0": 6}, threads=1)


def test_the_thread_count_is_restored(store):
    before = torch.get_num_threads()
    Measured(store).predict(pointwise_graph(16), {}, threads=before + 1)
    assert torch.get_num_threads() == before


def test_channels_last_operands_are_laid_out_so(store, monkeypatch):
    seen = []
    profile = Interpreter.profile
    monkeypatch.setattr(Interpreter, "profile", lambda self, *inputs: seen.append(inputs) or profile(self, *inputs))
    builder = Builder()
    kind = TensorType((1, 3, 4, 4), torch.float32, "channels_last")
    graph = builder.finish(builder.add("aten.relu.default", builder.input("x", kind), outputs=kind))
    Measured(store).predict(graph, {}, threads=1)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for (x,) in seen)
