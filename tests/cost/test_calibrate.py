"""Calibration: measured once for each host and thread count, believable, and close to what models take."""

import time

import pytest
import torch
from torch import nn

import taut.cost._calibrate as calibration
from taut.cost import CostModel, Measured, Peaks, Rate, Roofline, Store, calibrate
from taut.errors import ArgumentError
from taut.graph import bind_sizes, capture
from taut.transform import apply_recipe


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.sqlite", host="this")


@pytest.fixture
def measured(monkeypatch, peaks):
    """The thread counts that were measured; two threads are reported slower than one, as on a busy host."""
    counts = []

    def measure(threads: int) -> Peaks:
        counts.append(threads)
        values = peaks.to_dict() | {"threads": threads}
        if threads > 1:
            values |= {
                "flops": {"fp32": 1.0, "bf16": 3e12},
                "rates": {"linear.fp32": [9e-6, 1.0], "pooling.fp32": [0.028, 1e10]},
            }
        return Peaks.from_dict(values)

    monkeypatch.setattr(calibration, "_measure", measure)
    return counts


def test_peaks_are_measured_once_per_host_and_thread_count(store, measured):
    first = calibrate(threads=1, store=store)
    assert calibrate(threads=1, store=Store(store.path, host="this")) == first
    assert measured == [1]
    calibrate(threads=1, store=Store(store.path, host="another"))
    assert measured == [1, 1]
    calibrate(threads=1, store=store, refresh=True)
    assert measured == [1, 1, 1]


def test_several_threads_are_held_as_fast_as_one_at_least_and_as_all_of_them_at_most(store, measured):
    both = calibrate(threads=2, store=store)
    assert measured == [2, 1]
    assert both.flops == {"fp32": 1e12, "bf16": 3e12}
    assert both.rates == {"linear.fp32": Rate(9e-6, 5e11), "pooling.fp32": Rate(0.0, 2e9)}


def test_peaks_of_a_busy_host_are_measured_again_later(store, measured, monkeypatch):
    calibrate(threads=2, store=store)
    calibrate(threads=2, store=store)
    assert measured == [2, 1]
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    calibrate(threads=2, store=store)
    assert measured == [2, 1, 2]


def test_a_record_that_is_no_peaks_is_measured_again(store, measured):
    calibrate(threads=1, store=store)
    ((key, record),) = ((key, store.latest([key])[key]) for key in _keys(store))
    store.append({key: {name: value for name, value in record.items() if name != "flops"}})
    assert calibrate(threads=1, store=store).flops["fp32"] == 1e12
    assert measured == [1, 1]


def _keys(store: Store) -> set[str]:
    import contextlib
    import sqlite3

    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        return {row[0] for row in connection.execute("SELECT key FROM measurements")}


@pytest.mark.parametrize("threads", [0, -1])
def test_a_thread_count_below_one_is_refused(store, threads):
    with pytest.raises(ArgumentError, match="threads"):
        calibrate(threads=threads, store=store)


def small_network() -> nn.Module:
    def block(channels: int, out: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

    layers = [*block(3, 32, 1), *block(32, 32, 1), *block(32, 64, 2), *block(64, 64, 1), *block(64, 128, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)).eval()


def small_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "inputs"),
    [(small_network, (torch.rand(4, 3, 32, 32),)), (small_encoder, (torch.rand(2, 64, 128),))],
    ids=["network", "encoder"],
)
def test_the_roofline_is_within_a_factor_of_three_of_the_measured_time(tmp_path, model, inputs):
    store = Store(tmp_path / "store.sqlite", host="this")
    graph = capture(model(), inputs)
    sizes = bind_sizes(graph, *inputs)
    modelled = Roofline(calibrate(threads=1, store=store)).predict(graph, sizes, threads=1)
    measured = Measured(store, inputs=inputs).predict(graph, sizes, threads=1)
    assert 1 / 3 < modelled.total / measured.total < 3


@pytest.mark.slow
def test_real_peaks_are_ordered_as_hardware_is(tmp_path):
    peaks = calibrate(threads=1, store=Store(tmp_path / "store.sqlite", host="this"))
    assert peaks.bandwidth["l1"] > peaks.bandwidth["dram"]
    assert peaks.dispatch["eager"] < peaks.dispatch["interpreter"] * 10
    for family in ("linear.fp32", "convolution.fp32"):  # no operator beats the peak by more than the timing's error
        assert peaks.rates[family].per_second < 1.5 * peaks.flops["fp32"]


@pytest.mark.slow
def test_techniques_rank_by_their_modelled_gain_as_they_do_by_the_measured_one(tmp_path):
    store = Store(tmp_path / "store.sqlite", host="this")
    inputs = (torch.rand(8, 64, 128),)
    graph = capture(small_encoder(), inputs)
    model = Roofline(calibrate(threads=1, store=store))
    rewritten = [graph, *(apply_recipe(graph, [(name, {})])[0] for name in ("fuse_linear", "int8_linear"))]

    def ranked(model: CostModel) -> list[int]:
        totals = [model.predict(candidate, {}, threads=1).total for candidate in rewritten]
        return sorted(range(len(totals)), key=totals.__getitem__)

    assert ranked(model) == ranked(Measured(store, inputs=inputs)) == [2, 1, 0]
