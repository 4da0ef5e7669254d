"""What each layer loses alone, what it takes, and an assignment that comes true."""

import pytest
import torch
from by_hand import by_hand, call, normal

from taut.cost import Peaks, Rate, Roofline
from taut.errors import ArgumentError, DataError, Interrupted
from taut.graph import Interpreter
from taut.numerics import encode, get_format
from taut.transform import SensitivityTable, assign, get_pass, measure_sensitivity

SCHEMES = ("int8-channel", "vsq4-v16-s4", "int3-channel")
WIDTHS = {"first": (48, 32), "second": (64, 48), "third": (16, 64)}


def body(builder, x):
    for seed, (name, shape) in enumerate(WIDTHS.items()):
        weight = builder.constant(normal(*shape, seed=seed) / 6, f"{name}.weight")
        x = call(builder, "aten.tanh.default", call(builder, "aten.linear.default", x, weight))
    return x


@pytest.fixture(scope="module")
def graph():
    return by_hand(body, (8, 32))


BATCHES = [(normal(8, 32, seed=seed),) for seed in range(3)]


@pytest.fixture(scope="module")
def table(graph):
    return measure_sensitivity(graph, BATCHES, SCHEMES)


def test_each_cell_is_the_error_of_that_layer_alone(graph, table):
    assert table.layers == tuple(WIDTHS)
    assert table.schemes == ("float32", *SCHEMES)
    cells = {(entry.layer, entry.scheme): entry for entry in table.entries}
    assert len(cells) == len(table.entries) == 12
    assert table.missing == []
    for layer, shape in WIDTHS.items():
        assert cells[layer, "float32"].error == 0
        assert cells[layer, "float32"].bytes == 4 * shape[0] * shape[1]
        for scheme in SCHEMES:
            assert cells[layer, scheme].bytes == get_format(scheme).nbytes(shape)
        errors = [cells[layer, scheme].error for scheme in SCHEMES]
        assert errors == sorted(errors)
    noise = signal = 0.0
    for (x,) in BATCHES:
        weights = [normal(*shape, seed=seed) / 6 for seed, shape in enumerate(WIDTHS.values())]
        outputs = []
        for second in (weights[1], encode(weights[1], get_format("int3-channel")).decode()):
            value = x
            for weight in (weights[0], second, weights[2]):
                value = torch.tanh(value @ weight.T)
            outputs.append(value.double())
        noise += float((outputs[1] - outputs[0]).square().sum())
        signal += float(outputs[0].square().sum())
    assert cells["second", "int3-channel"].error == pytest.approx(noise / signal, rel=1e-4)


def test_bytes_of_table_and_rest_are_those_of_the_graph(graph, table):
    for scheme in SCHEMES:
        whole = get_pass("quantise").apply(graph, scheme=scheme).graph
        stored = sum(tensor.nbytes for tensor in whole.constants.values())
        assert stored == table.rest_bytes + sum(entry.bytes for entry in table.entries if entry.scheme == scheme)


def test_an_assignment_comes_true(graph, table):
    budget = 5_000
    made = assign(table, budget=budget)
    assert len(set(made.schemes.values())) > 1
    after = get_pass("quantise").apply(graph, scheme="float32", layers=made.layers).graph
    assert sum(tensor.nbytes for tensor in after.constants.values()) == made.cost <= budget


def test_seconds_come_from_the_cost_model(graph):
    rate = Rate(0.0, 1e9)
    peaks = Peaks(
        threads=1,
        flops={"fp32": 1e9, "bf16": 1e9, "int8": 4e9},
        bandwidth={"l1": 1e12, "l2": 1e12, "l3": 1e12, "dram": 1e12},
        cache_bytes={"l1": 1 << 15, "l2": 1 << 20, "l3": 1 << 25},
        dispatch={"interpreter": 1e-6, "eager": 1e-6},
        rates={"linear.fp32": rate, "linear.int8": Rate(0.0, 4e9)},
    )
    table = measure_sensitivity(graph, BATCHES[:1], ["poc-w8a8"], cost_model=Roofline(peaks))
    cells = {(entry.layer, entry.scheme): entry.seconds for entry in table.entries}
    for layer, (outputs, inputs) in WIDTHS.items():
        operations = 2 * 8 * inputs * outputs
        assert cells[layer, "float32"] == pytest.approx(1e-6 + operations / 1e9)
        assert cells[layer, "poc-w8a8"] == pytest.approx(1e-6 + operations / 4e9)
    total = Roofline(peaks).predict(graph, {}, threads=1).total
    made = assign(table, budget=total, by="seconds")
    assert set(made.schemes.values()) == {"float32"}
    assert made.cost == pytest.approx(total)


def test_an_interruption_keeps_what_was_measured(graph):
    def stop(doing, share):
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="after 5 of 9") as caught:
        measure_sensitivity(graph, BATCHES, SCHEMES, progress=stop)
    table = caught.value.result
    assert isinstance(table, SensitivityTable)
    assert len(table.entries) == 3 + 5
    assert len(table.missing) == 4
    with pytest.raises(ArgumentError, match="second lacks"):
        assign(table, budget=1e9)


def test_progress_names_layer_and_scheme(graph):
    told = []
    measure_sensitivity(graph, BATCHES[:1], ["q4_0"], progress=lambda doing, share: told.append((doing, share)))
    assert told == [(f"{layer} at q4_0", index / 3) for index, layer in enumerate(WIDTHS)]


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "no calibration data"),
        ([(normal(8, 31),)], "batch 0: "),
        ([(normal(8, 32),), (normal(8, 32).double(),)], "batch 1: "),
        ([(normal(8, 32) * float("nan"),)], "NaN or infinity"),
    ],
)
def test_wrong_data_is_named(graph, batches, said):
    with pytest.raises(DataError, match=said):
        measure_sensitivity(graph, batches, SCHEMES)


@pytest.mark.parametrize(
    ("schemes", "options", "said"),
    [
        ([], {}, "at least one scheme"),
        (["float32"], {}, "without float32"),
        (["int8-chanel"], {}, "int8-channel"),
        (["q4_0"], {"minimum_features": 1000}, "a layer that can be quantised"),
        (["q4_0"], {"minimum_features": 0}, "a whole number from 1"),
        (["q4_0"], {"skip": ["nowhere"]}, r"quantise\.skip"),
    ],
)
def test_wrong_requests_are_named(graph, schemes, options, said):
    with pytest.raises(ArgumentError, match=said):
        measure_sensitivity(graph, BATCHES, schemes, **options)


def test_the_float_graph_is_left_alone(graph, table):
    assert table.rest_bytes == 0
    x = BATCHES[0][0]
    assert torch.equal(Interpreter(graph)(x), Interpreter(by_hand(body, (8, 32)))(x))
