"""Advice: the step model on given constants, verdicts, cross-overs, profiles and the study."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.distributed import (
    BASELINES,
    CANDIDATES,
    KEPT,
    KEPT_NOTE,
    Cluster,
    Communicator,
    EncodeCost,
    Gradient,
    Measured,
    Memory,
    NoCompression,
    Profile,
    _probe,
    advise,
    even_workload,
    measure_workload,
    predict,
    read_profile,
    render_advice,
    run_study,
    sent_bytes,
    step_seconds,
    sweep,
    time_encoder,
)
from taut.distributed._memory import joined
from taut.distributed._probe import time_encoders
from taut.distributed._study import RECIPE
from taut.errors import ArgumentError, ArtefactError, ModelError, TruncatedError, VersionError
from taut.hardware import DRAWS, FORMS, LinkModel
from taut.stats import Quietness

MEGABIT = 1e6 / 8
SHAPES = [(1000, 1000)] * 20  # 80 MB
SLOW, FAST = Cluster(8, 100 * MEGABIT), Cluster(8, 1e6 * MEGABIT)


def links(draws: int = 0, latency: float = 0.0) -> LinkModel:
    """Nothing but bytes over the link, and latency if wanted; draws are up to 1 % off."""
    rows = np.tile([0.0, latency, 0.0, 1.0], (1 + draws, 1))
    factors = np.concatenate([[1.0], np.linspace(0.99, 1.01, draws)])
    return LinkModel(dict.fromkeys(FORMS, rows), dict.fromkeys(FORMS, factors))


def profile(encode: float = 1e-9, draws: int = 16) -> Profile:
    """Encoders that take `encode` seconds an element."""
    costs = {name: EncodeCost(np.tile([0.0, encode, 0.0], (1 + draws, 1))) for name in CANDIDATES}
    costs["fp32"] = EncodeCost(np.zeros((1 + draws, 3)))
    costs["fp16"] = EncodeCost(np.tile([0.0, 1e-11, 0.0], (1 + draws, 1)))
    return Profile(links(draws), costs, 1.0, 100 * MEGABIT, 8)


JOB = even_workload("job", SHAPES, 0.1, 0.05)
FREE = EncodeCost(np.zeros((1, 3)))


def test_a_slow_link_hides_the_backward_pass_but_for_its_first_bucket() -> None:
    # 20 equal layers of 4 MB; the first bucket closes at 1 MB, with one layer, and the link is busy from then on.
    seconds = step_seconds(JOB, CANDIDATES["fp32"], FREE, SLOW, links())[0]
    dense = 2 * 7 / 8 * 80e6 / (100 * MEGABIT)
    assert seconds == pytest.approx(0.05 + 0.1 / 20 + dense)


def test_a_fast_link_leaves_the_computation_and_the_last_bucket() -> None:
    seconds = step_seconds(JOB, CANDIDATES["fp32"], FREE, FAST, links())[0]
    last = JOB.buckets()[-1]
    assert seconds == pytest.approx(0.15 + 2 * 7 / 8 * 4 * last.elements / (1e6 * MEGABIT))


def test_encoding_delays_the_backward_pass_only_where_they_compete() -> None:
    cost = EncodeCost(np.array([[0.0, 1e-9, 0.0]]))  # 20 ms in all
    alone = step_seconds(JOB, CANDIDATES["fp32"], cost, replace(FAST, competes=False), links())[0]
    competing = step_seconds(JOB, CANDIDATES["fp32"], cost, FAST, links())[0]
    assert competing >= 0.15 + 0.02
    assert alone < competing


def test_buckets_hold_every_gradient_once_and_close_at_their_size() -> None:
    buckets = JOB.buckets(25 * 2**20)
    assert sum(bucket.elements for bucket in buckets) == JOB.elements
    assert [len(bucket.shapes) for bucket in buckets] == [1, 7, 7, 5]
    assert [bucket.ready for bucket in buckets] == sorted(bucket.ready for bucket in buckets)
    assert buckets[-1].ready == pytest.approx(JOB.backward)


def test_a_size_of_buckets_that_was_chosen_holds_for_the_first_one_too() -> None:
    assert [len(bucket.shapes) for bucket in JOB.buckets(8 * 2**20)] == [3] * 6 + [2]


@given(
    name=st.sampled_from(sorted(CANDIDATES)),
    bandwidth=st.floats(1e6, 1e12),
    factor=st.floats(1, 1000),
    ranks=st.integers(2, 64),
    slowdown=st.floats(1, 2),
)
def test_a_faster_link_never_takes_longer_and_nothing_beats_the_computation(
    name: str, bandwidth: float, factor: float, ranks: int, slowdown: float
) -> None:
    slow = Cluster(ranks, bandwidth, slowdown=slowdown)
    found = predict(JOB, name, slow, profile())[0]
    faster = predict(JOB, name, replace(slow, bandwidth=bandwidth * factor), profile())[0]
    assert faster <= found * (1 + 1e-12)
    assert faster >= slowdown * JOB.backward + JOB.other - 1e-12


def test_cheap_encoding_helps_on_a_slow_link_and_dear_encoding_hurts_on_a_fast_one() -> None:
    slow = advise(JOB, SLOW, profile())
    assert slow.best is not None
    assert slow.baseline == "fp16"
    verdicts = {one.name: one.verdict for one in slow.predictions}
    assert verdicts["top-k 1 %"] == verdicts["PowerSGD rank 4"] == "helps"
    assert verdicts["fp32"] == "hurts"
    fast = advise(JOB, FAST, profile(encode=1e-8))
    assert fast.best is None
    assert fast.answer.startswith("don't compress")
    assert {one.verdict for one in fast.predictions if one.name not in BASELINES} == {"hurts"}


def test_what_keeps_little_of_a_gradient_is_advised_with_a_caution_only() -> None:
    assert set(KEPT) == set(CANDIDATES)
    assert all(0 < kept <= 1 for kept in KEPT.values())
    found = advise(JOB, SLOW, profile())
    assert found.answer.startswith("ACP-SGD rank 4: ")
    assert "keeps 7 % of a gradient in its first exchange" in found.answer
    assert "of those that keep half or more, PowerSGD rank 4: " in found.answer
    alone = advise(JOB, SLOW, profile(), names=["random-k 1 %"])
    assert "it keeps 1 % of a gradient" in alone.answer
    assert "none that keeps half or more helps" in alone.answer
    assert "keeps" not in advise(JOB, SLOW, profile(), names=["PowerSGD rank 4"]).answer
    assert {one["name"]: one["kept_of_reference"] for one in found.to_dict()["predictions"]} == KEPT
    page = render_advice(found, [1e6, 1e9], sweep(JOB, SLOW, profile(), ["fp32"], [1e6, 1e9]))
    assert page.count("<td>1 %</td>") == 1
    assert KEPT_NOTE.replace("'", "&#39;") in page


def test_a_compressor_that_costs_and_saves_nothing_is_no_evidence() -> None:
    given_costs = profile()
    same = replace(given_costs, costs={**given_costs.costs, "bf16": given_costs.costs["fp16"]})
    found = {one.name: one for one in advise(JOB, SLOW, same, names=["bf16"]).predictions}
    assert found["bf16"].verdict == "no evidence"
    assert set(found) == {"fp32", "fp16", "bf16"}


def test_the_crossover_parts_links_on_which_it_helps_from_those_on_which_it_does_not() -> None:
    known = profile()
    found = {one.name: one for one in advise(JOB, SLOW, known).predictions}
    crossover = found["top-k 1 %"].crossover
    assert crossover is not None
    for factor, worth_while in ((0.95, True), (1.05, False)):
        cluster = replace(SLOW, bandwidth=factor * crossover)
        base = min(predict(JOB, name, cluster, known)[0] for name in BASELINES)
        assert (base / predict(JOB, "top-k 1 %", cluster, known)[0] > 1.01) == worth_while
    assert found["top-k 10 %"].crossover is None  # gathers more from 8 ranks than fp16 reduces


def test_a_gain_that_no_verdict_calls_help_has_no_crossover() -> None:
    given_costs = profile()
    barely = given_costs.costs["fp16"].coefficients * 0.5  # a little less encoding, and not 1 % of any step
    same = replace(given_costs, costs={**given_costs.costs, "bf16": EncodeCost(barely)})
    (found,) = (one for one in advise(JOB, SLOW, same, names=["bf16"]).predictions if one.name == "bf16")
    assert found.speedup["fp16"].estimate > 1
    assert found.crossover is None


def test_bytes_are_those_of_the_compressor() -> None:
    found = {one.name: one for one in advise(JOB, SLOW, profile(), crossovers=False).predictions}
    assert found["fp32"].sent == pytest.approx(2 * 7 / 8 * 80e6)
    assert found["fp16"].sent == pytest.approx(7 / 8 * 80e6)
    assert found["top-k 1 %"].sent == pytest.approx(7 * 8 * 200_000, rel=1e-3)
    assert found["sign"].sent == sent_bytes(JOB, CANDIDATES["sign"], 8)


def test_an_unknown_compressor_is_refused() -> None:
    with pytest.raises(ArgumentError, match="gzip"):
        advise(JOB, SLOW, profile(), names=["gzip"])


def test_the_backward_pass_of_another_device_scales_everything_computed() -> None:
    scaled = JOB.scaled(0.2)
    assert (scaled.backward, scaled.other) == pytest.approx((0.2, 0.1))
    assert scaled.ready == pytest.approx([2 * one for one in JOB.ready])
    with pytest.raises(ArgumentError, match="backward"):
        JOB.scaled(0.0)


def test_a_workload_without_parameters_is_refused() -> None:
    with pytest.raises(ArgumentError):
        even_workload("empty", [], 0.1)


def test_a_measured_workload_lists_gradients_in_the_order_in_which_they_are_ready() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 3))
    found = measure_workload("two", module, (torch.randn(2, 8),), repeats=2)
    assert set(found.shapes[:2]) == {torch.Size((3, 4)), torch.Size((3,))}
    assert set(found.shapes[2:]) == {torch.Size((4, 8)), torch.Size((4,))}
    assert list(found.ready) == sorted(found.ready)
    assert found.ready[-1] <= found.backward
    assert all(parameter.grad is None for parameter in module.parameters())


def test_unused_parameters_are_no_part_of_a_workload() -> None:
    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = torch.nn.Linear(2, 2), torch.nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    found = measure_workload("half", Half(), (torch.randn(1, 2),), repeats=1)
    assert found.elements == 6
    with pytest.raises(ModelError):
        measure_workload("none", torch.nn.ReLU(), (torch.randn(1, 2),), repeats=1)


def test_timing_an_encoder_gives_costs_that_grow_with_the_gradient() -> None:
    cost = time_encoder(CANDIDATES["bf16"], repeats=2)
    small, large = (cost.seconds(1, elements, 4) for elements in (10**5, 10**7))
    assert (cost.coefficients >= 0).all()
    assert (large > small).all()


def test_plain_data_parallel_encodes_nothing() -> None:
    (cost,) = time_encoders(names=["fp32"]).values()
    assert cost.coefficients.shape == (1 + DRAWS, 3)
    assert not cost.coefficients.any()


def test_encoders_are_timed_on_gradients_that_lie_in_one_bucket() -> None:
    seen: list[bool] = []

    class Seen(NoCompression):
        def exchange(self, gradients: Sequence[Gradient], communicator: Communicator, memory: Memory) -> None:
            seen.append(joined([gradient.tensor for gradient in gradients]) is not None)

    time_encoder(Seen(), repeats=1)
    assert seen
    assert all(seen)


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    known = profile()
    known.write(path)
    again = read_profile(path)
    assert (again.slowdown, again.bandwidth, again.ranks) == (known.slowdown, known.bandwidth, known.ranks)
    for name, cost in known.costs.items():
        assert np.array_equal(again.costs[name].coefficients, cost.coefficients)
    assert advise(JOB, SLOW, again).to_dict() == advise(JOB, SLOW, known).to_dict()


def test_a_profile_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    profile().write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cores_per_rank": 1.0}))
    assert read_profile(path).ranks == 8


def test_a_probe_of_a_busy_host_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = profile()
    busy = Quietness(False, None, 0.0, 0.6, None, ("other processes used 60% of the cores",))
    monkeypatch.setattr(_probe, "quietness", lambda: busy)
    monkeypatch.setattr(_probe, "time_encoders", lambda _: known.costs)
    measured = Measured([], alone=1.0, beside=9.5, reduced=0.0)
    found = _probe._profile(known.links, measured, 100 * MEGABIT, 8, 1.0, lambda *_: None)
    assert "60% of the cores" in found.doubts[0]
    assert "9.5 times" in found.doubts[1]
    found.write(tmp_path / "profile.json")
    assert read_profile(tmp_path / "profile.json").doubts == found.doubts
    advice = advise(JOB, SLOW, found)
    assert advice.to_dict()["doubts"] == list(found.doubts)
    page = render_advice(advice, [1e6, 1e9], sweep(JOB, SLOW, found, ["fp32"], [1e6, 1e9]))
    for doubt in found.doubts:
        assert f"doubtful: {doubt}" in found.lines()
        assert doubt in page


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": "other"}, ArtefactError),
        ({"version": 99}, VersionError),
        ({"slowdown": "fast"}, ArtefactError),
        ({"slowdown": 0.5}, ArtefactError),
        ({"slowdown": 10**400}, ArtefactError),
        ({"costs": {"fp32": [[10**400, 0, 0]]}}, ArtefactError),
        ({"links": {}}, ArtefactError),
        ({"links": None}, ArtefactError),
        ({"costs": {}}, ArtefactError),
        ({"costs": {"fp32": [[1, 2]]}}, ArtefactError),
        ({"costs": {"fp32": [[0, 0, 0]]}}, ArtefactError),
        ({"ranks": None}, ArtefactError),
    ],
)
def test_a_broken_profile_is_refused(tmp_path: Path, change: dict[str, object], error: type[Exception]) -> None:
    path = tmp_path / "profile.json"
    profile().write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error):
        read_profile(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"3"])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(ArtefactError):
        read_profile(path)
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_profile(tmp_path / "absent.json")


def test_a_cut_profile_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    profile().write(path)
    path.write_text(path.read_text()[:500])
    with pytest.raises(TruncatedError):
        read_profile(path)


def test_the_page_escapes_names_and_draws_a_line_for_each_compressor() -> None:
    hostile = replace(JOB, name="<script>alert(1)</script>")
    advice = advise(hostile, SLOW, profile())
    bandwidths = [1e6, 1e7, 1e8, 1e9]
    lines = sweep(hostile, SLOW, profile(), ["fp32", "fp16", "top-k 1 %"], bandwidths)
    page = render_advice(advice, bandwidths, lines)
    assert "<script" not in page
    assert page.count("<polyline") == 3
    assert "modelled" in page


def test_in_the_study_compression_hardly_pays_on_data_centre_links_and_often_on_slow_ones() -> None:
    found = run_study()
    by_link = {
        bandwidth: [one.helps for one in found if math.isclose(one.bandwidth, bandwidth * 125e6)]
        for bandwidth in (25, 10, 1)
    }
    assert all(len(one) > 200 for one in by_link.values())
    assert sum(by_link[25]) == 0
    assert sum(by_link[10]) < 0.15 * len(by_link[10])
    assert sum(by_link[1]) > 0.5 * len(by_link[1])


def test_a_recipe_that_lacks_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"latency_seconds": 0}')
    with pytest.raises(ArtefactError, match="recipe"):
        run_study(path)
    path.write_text(json.dumps(json.loads(RECIPE.read_text()) | {"encoded_elements": 0}))
    with pytest.raises(ArtefactError, match="recipe"):
        run_study(path)
    with pytest.raises(ArtefactError, match="cannot be read"):
        run_study(tmp_path / "absent.json")
