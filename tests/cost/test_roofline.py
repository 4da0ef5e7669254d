"""The roofline model: exact on round figures, and never cheaper for more work."""

import dataclasses
import math

import pytest
import sympy
import torch
from cost_graphs import linear_graph, pointwise_graph
from hypothesis import given
from hypothesis import strategies as st

from taut.cost import CostModel, Peaks, Prediction, Rate, Roofline
from taut.errors import ArgumentError
from taut.graph import Builder, Graph, Ref, ScalarType, SymbolRange, TensorType, rewrite
from taut.kernels import pack_int8_linear


def predict(peaks: Peaks, graph: Graph, **sizes: int) -> Prediction:
    model: CostModel = Roofline(peaks)
    return model.predict(graph, sizes, threads=peaks.threads)


def only(prediction: Prediction) -> float:
    (seconds,) = (value for value in prediction.seconds if value)
    return seconds


def test_a_compute_bound_linear_layer(peaks):
    prediction = predict(peaks, linear_graph(128, 1024, 1024))
    operations = 2 * 128 * 1024 * 1024  # at 5e11 a second, after 1 us of dispatch and 3 us of the operator's own
    assert only(prediction) == pytest.approx(4e-6 + operations / 5e11)
    assert prediction.bounds == (None, None, "compute")
    assert prediction.seconds[:2] == (0.0, 0.0)
    assert (prediction.kind, prediction.model, prediction.total) == ("modelled", "roofline", sum(prediction.seconds))


def test_a_memory_bound_linear_layer_reads_its_weights_from_where_all_weights_fit(peaks):
    prediction = predict(peaks, linear_graph(1, 2048, 2048))
    weights, activations = 4 * 2048 * 2048, 4 * (2048 + 2048)  # 16 MiB and a little: level 3
    assert only(prediction) == pytest.approx(4e-6 + (weights + activations) / 2e11)
    assert prediction.bounds[2] == "memory"


def test_weights_come_from_main_memory_when_the_rest_of_the_model_evicts_them(peaks):
    small = linear_graph(1, 64, 64)
    builder = Builder()
    kind = TensorType((1, 64), torch.float32)
    value = builder.input("x", kind)
    for index in range(3):
        weight = builder.constant(torch.full((64, 64), float(index)), f"weight{index}")
        value = builder.add("aten.linear.default", value, weight, outputs=kind)
    tight = dataclasses.replace(peaks, cache_bytes={"l1": 20_000, "l2": 30_000, "l3": 40_000})
    alone, among_others = only(predict(tight, small)), max(predict(tight, builder.finish(value)).seconds)
    weights, activations = 4 * 64 * 64, 4 * (64 + 64)
    assert alone == pytest.approx(4e-6 + (weights + activations) / 1e12)
    assert among_others == pytest.approx(4e-6 + weights / 5e10 + activations / 1e12)


@pytest.mark.parametrize(
    ("elements", "level"), [(4096, "l1"), (4097, "l2"), (131_072, "l2"), (131_073, "l3"), (4_194_305, "dram")]
)
def test_the_bandwidth_is_that_of_the_level_that_holds_inputs_and_outputs(peaks, elements, level):
    fast = dataclasses.replace(peaks, rates={})
    seconds = only(predict(fast, pointwise_graph(elements)))
    assert seconds == pytest.approx(1e-6 + 8 * elements / peaks.bandwidth[level])


def test_elementwise_work_is_counted_in_elements(peaks):
    prediction = predict(peaks, pointwise_graph(1000))
    assert only(prediction) == pytest.approx(1.5e-6 + 1000 / 1e10)
    assert prediction.bounds[1] == "overhead"


def test_a_linear_layer_on_a_transposed_view_has_a_rate_of_its_own(peaks):
    slow = dataclasses.replace(peaks, rates={**peaks.rates, "strided_linear.fp32": Rate(0.0, 1e9)})
    builder = Builder()
    x = builder.input("x", TensorType((8, 4, 64), torch.float32))
    turned = builder.add("aten.transpose.int", x, 0, 1, outputs=TensorType((4, 8, 64), torch.float32))
    weight = builder.constant(torch.ones(16, 64), "weight")
    y = builder.add("aten.linear.default", turned, weight, outputs=TensorType((4, 8, 16), torch.float32))
    assert predict(slow, builder.finish(y)).seconds[-1] == pytest.approx(1e-6 + 2 * 32 * 64 * 16 / 1e9)


@pytest.mark.parametrize(
    ("channels", "groups", "family"), [(16, 16, "depthwise"), (1, 1, "convolution"), (16, 1, "convolution")]
)
def test_a_depthwise_convolution_has_a_rate_of_its_own(peaks, channels, groups, family):
    slow = dataclasses.replace(peaks, rates={f"{family}.fp32": Rate(0.0, 1e9)})
    builder = Builder()
    x = builder.input("x", TensorType((1, channels, 8, 8), torch.float32))
    weight = builder.constant(torch.ones(16, channels // groups, 3, 3), "weight")
    kind = TensorType((1, 16, 8, 8), torch.float32)
    y = builder.add("aten.conv2d.default", x, weight, None, (1, 1), (1, 1), (1, 1), groups, outputs=kind)
    operations = 2 * 16 * (channels // groups) * 9 * 8 * 8
    assert only(predict(slow, builder.finish(y))) == pytest.approx(1e-6 + operations / 1e9)


def test_pooling_work_is_counted_in_the_elements_that_it_reads(peaks):
    builder = Builder()
    x = builder.input("x", TensorType((1, 8, 32, 32), torch.float32))
    pooled = TensorType((1, 8, 16, 16), torch.float32)
    y = builder.add("aten.max_pool2d.default", x, (2, 2), outputs=pooled)
    assert only(predict(peaks, builder.finish(y))) == pytest.approx(1e-6 + 8 * 32 * 32 / 1e9)


def test_a_view_costs_its_call_only(peaks):
    prediction = predict(peaks, pointwise_graph(1024, 1024, op="aten.t.default"))
    assert (only(prediction), prediction.bounds[1]) == (1e-6, "overhead")


def test_the_runner_decides_the_cost_of_a_call(peaks):
    graph = pointwise_graph(1024, op="aten.alias.default")
    eager = Roofline(peaks, runner="eager").predict(graph, {}, threads=1)
    assert eager.total == 2e-6


def test_int8_is_predicted_faster_than_float_by_the_ratio_of_their_rates(peaks):
    plain = linear_graph(128, 1024, 1024)
    (weight,) = plain.constants.values()
    packed, scales = pack_int8_linear(weight)

    def quantise(node, builder):
        if node.op != "aten.linear.default":
            return None
        weights = builder.constant(packed, "packed"), builder.constant(scales, "scales")
        x = builder.map(node.args[0])
        return builder.add("taut.int8_linear.default", x, *weights, None, "none", outputs=node.outputs)

    operations = 2 * 128 * 1024 * 1024
    assert only(predict(peaks, rewrite(plain, quantise))) == pytest.approx(2e-6 + operations / 2e12)


def test_a_family_without_a_calibrated_rate_scales_the_float_one_by_the_peaks(peaks):
    half = predict(peaks, linear_graph(128, 1024, 1024, torch.bfloat16))
    assert only(half) == pytest.approx(4e-6 + 2 * 128 * 1024 * 1024 / 1e12)
    bare = dataclasses.replace(peaks, rates={})
    assert only(predict(bare, linear_graph(128, 1024, 1024))) == pytest.approx(1e-6 + 2 * 128 * 1024**2 / 1e12)


def test_symbolic_sizes_take_their_values(peaks):
    length = sympy.Symbol("s0", integer=True, nonnegative=True)
    builder = Builder()
    kind = TensorType((length, 16), torch.float32)
    y = builder.add("aten.neg.default", builder.input("x", kind), outputs=kind)
    graph = builder.finish(y, symbols={"s0": SymbolRange(2, 512)})
    assert predict(peaks, graph, s0=100).total == pytest.approx(predict(peaks, pointwise_graph(100, 16)).total)
    with pytest.raises(ArgumentError, match="s0"):
        predict(peaks, graph)


def test_a_data_dependent_size_is_taken_at_its_upper_end_and_noted(peaks):
    count = sympy.Symbol("u0", integer=True, nonnegative=True)
    builder = Builder()
    kind = TensorType((count, 16), torch.float32)
    y = builder.add("aten.neg.default", builder.input("x", kind), outputs=kind)
    graph = builder.finish(y, symbols={"u0": SymbolRange(0, 300, backed=False)})
    prediction = predict(peaks, graph)
    assert prediction.total == pytest.approx(predict(peaks, pointwise_graph(300, 16)).total)
    assert prediction.notes == ("the size u0 depends on data; taken as 300",)


def test_a_branch_counts_its_slower_side(peaks):
    builder = Builder()
    kind = TensorType((64, 64), torch.float32)
    flag, x = builder.input("flag", ScalarType("bool")), builder.input("x", kind)
    slow, fast = pointwise_graph(64, 64), pointwise_graph(64, 64, op="aten.t.default")
    y = builder.add("cond", flag, (x,), outputs=kind, regions=(fast, slow))
    prediction = predict(peaks, builder.finish(y))
    assert prediction.total == predict(peaks, slow).total
    assert prediction.notes == ("cond at node 2: the slower branch is counted",)


def test_map_counts_its_region_for_each_row(peaks):
    builder = Builder()
    kind = TensorType((10, 64), torch.float32)
    region = pointwise_graph(64)
    y = builder.add("map", (builder.input("x", kind),), (), outputs=kind, regions=(region,))
    assert predict(peaks, builder.finish(y)).total == pytest.approx(10 * predict(peaks, region).total)


def loop(bound: int | None) -> Graph:
    """`i, x = 0, x; while i < bound: i, x = i + 1, -x`; without a bound the limit is an input of the graph."""
    kind, number = TensorType((64,), torch.float32), ScalarType("int")
    builder, condition, body = Builder(), Builder(), Builder()
    x, limit = builder.input("x", kind), builder.input("limit", number)
    for region in (condition, body):
        for name, value in (("i", number), ("x", kind), ("limit", number)):
            region.input(name, value)
    test = condition.add("sym.lt", Ref(0), Ref(2) if bound is None else bound, outputs=ScalarType("bool"))
    index = body.add("sym.add", Ref(0), 1, outputs=number)
    value = body.add("aten.neg.default", Ref(1), outputs=kind)
    regions = condition.finish((test,)), body.finish((index, value))
    made = builder.add("while_loop", (0, x), (limit,), outputs=(number, kind), regions=regions)
    return builder.finish(Ref(made.node, 1))


def test_a_loop_counts_its_regions_by_the_trip_count(peaks):
    once = predict(peaks, pointwise_graph(64)).total
    assert predict(peaks, loop(9)).total == pytest.approx(9 * once)
    assert predict(peaks, loop(0)).total == 0.0
    assert predict(peaks, loop(9)).notes == ()


def test_a_loop_of_unknown_length_counts_once_and_says_so(peaks):
    prediction = predict(peaks, loop(None))
    assert prediction.total == predict(peaks, pointwise_graph(64)).total
    (note,) = prediction.notes
    assert "trip count is unknown" in note


sizes = st.integers(1, 3000)
figures = st.floats(1e6, 1e15)


@st.composite
def hosts(draw):
    """Any host, even one whose outer levels measured faster than its inner ones."""
    capacity = sorted(draw(st.lists(st.integers(1, 10**8), min_size=3, max_size=3)))
    names = [name for name in ("l1", "l2", "l3") if draw(st.booleans())]
    return Peaks(
        threads=1,
        flops={"fp32": draw(figures)},
        bandwidth={name: draw(figures) for name in [*names, "dram"]},
        cache_bytes=dict(zip(("l1", "l2", "l3"), capacity, strict=True)),
        dispatch={"interpreter": draw(st.floats(1e-9, 1e-3))},
        rates={"linear.fp32": Rate(draw(st.floats(0, 1e-3)), draw(figures))} if draw(st.booleans()) else {},
    )


@given(hosts(), sizes, sizes, sizes, sizes)
def test_more_rows_never_take_less_time(host, inner, columns, fewer, more):
    fewer, more = sorted((fewer, more))
    inner, columns = inner % 40 + 1, columns % 40 + 1  # the weights are real tensors
    slow, fast = predict(host, linear_graph(more, inner, columns)), predict(host, linear_graph(fewer, inner, columns))
    assert fast.total <= slow.total * (1 + 1e-12)


@given(hosts(), st.floats(0, 1e12), st.floats(0, 1e12))
def test_a_larger_working_set_never_streams_faster(host, one, other):
    smaller, larger = sorted((one, other))
    assert host.bytes_per_second(larger) <= host.bytes_per_second(smaller)


@given(hosts(), st.integers(1, 10**6), st.floats(1.0, 100.0))
def test_a_faster_host_is_never_predicted_slower(host, elements, factor):
    faster = dataclasses.replace(
        host,
        flops={name: value * factor for name, value in host.flops.items()},
        bandwidth={name: value * factor for name, value in host.bandwidth.items()},
    )
    graph = pointwise_graph(elements)
    assert predict(faster, graph).total <= predict(host, graph).total * (1 + 1e-12)


@given(hosts())
def test_peaks_survive_their_json_form(host):
    assert Peaks.from_dict(host.to_dict()) == host


@pytest.mark.parametrize(
    "damage", [{"flops": {}}, {"flops": {"fp32": -1.0}}, {"bandwidth": {"l1": 1e9}}, {"threads": 0}]
)
def test_impossible_peaks_are_refused(peaks, damage):
    with pytest.raises(ArgumentError):
        dataclasses.replace(peaks, **damage)
    with pytest.raises(ArgumentError):
        Peaks.from_dict(peaks.to_dict() | damage)


@pytest.mark.parametrize("missing", [field.name for field in dataclasses.fields(Peaks)])
def test_incomplete_peaks_are_refused(peaks, missing):
    with pytest.raises(ArgumentError, match="peaks"):
        Peaks.from_dict({name: value for name, value in peaks.to_dict().items() if name != missing})


def test_not_a_number_is_no_peak(peaks):
    with pytest.raises(ArgumentError, match="bandwidth"):
        dataclasses.replace(peaks, bandwidth={"dram": math.nan})


def test_another_thread_count_needs_other_peaks(peaks):
    with pytest.raises(ArgumentError, match="threads") as raised:
        Roofline(peaks).predict(pointwise_graph(8), {}, threads=2)
    assert "calibrate(threads=2)" in str(raised.value)


def test_an_unknown_runner_is_refused(peaks):
    with pytest.raises(ArgumentError, match="runner"):
        Roofline(peaks, runner="tpu")  # pyright: ignore[reportArgumentType]
