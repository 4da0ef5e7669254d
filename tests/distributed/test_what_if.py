"""What-ifs: sizes of buckets, faster devices and encoders, overlap, and the compression that linear scaling needs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_advice import FAST, JOB, MEGABIT, SLOW, links, profile

from taut.distributed import (
    AS_IS,
    BASELINES,
    BUCKET_CAPS,
    CANDIDATES,
    FACTORS,
    KEPT,
    Change,
    Cluster,
    EncodeCost,
    Profile,
    advise,
    even_workload,
    explore,
    faster_encoder,
    predict,
    recommend,
    render_advice,
    required_compression,
    step_seconds,
    sweep,
    sweep_changes,
)
from taut.errors import ArgumentError

factors = st.floats(0.01, 100)


def test_a_step_is_the_recurrence_over_its_buckets() -> None:
    """Bucket by bucket, as the model is told in words, against its closed form."""
    cost = EncodeCost(np.array([[1e-5, 2e-9, 1e-10]]))
    rows = np.array([[1e-4, 2e-5, 3e-10, 1.05]])
    model = replace(links(), coefficients={name: rows for name in links().coefficients})
    for name, ranks, cap in (("fp32", 4, 2**20), ("PowerSGD rank 4", 3, 2**23), ("top-k 1 %", 8, 25 * 2**20)):
        for competes in (True, False):
            cluster = Cluster(ranks, 1e9, 1.5, competes, 1.2)
            finish = stolen = 0.0
            for bucket in JOB.buckets(cap):
                coding = 1.5 * cost.seconds(len(bucket.shapes), bucket.elements, ranks)[0]
                sending = software = 0.0
                for message in CANDIDATES[name].traffic(bucket.shapes, ranks).messages:
                    sending += model.seconds(message.collective, message.size, ranks, 1e9, crowding=1.5)[0]
                    software += 1.5 * model.software(message.collective, message.size, ranks)[0]
                begin = 1.2 * 1.5 * bucket.ready + (stolen if competes else 0.0)
                finish = max(begin, finish) + coding + sending
                stolen += coding + software
            computed = 1.2 * 1.5 * JOB.backward + (stolen if competes else 0.0)
            expected = 1.5 * JOB.other + max(finish, computed)
            found = step_seconds(JOB, CANDIDATES[name], cost, cluster, model, bucket_bytes=cap)
            assert found[0] == pytest.approx(expected, rel=1e-12)


@given(name=st.sampled_from(sorted(CANDIDATES)), bandwidth=st.floats(1e6, 1e11), factor=st.floats(1, 100))
def test_what_gets_faster_never_takes_longer_and_what_gets_larger_never_less(
    name: str, bandwidth: float, factor: float
) -> None:
    cluster = replace(SLOW, bandwidth=bandwidth)

    def seconds(change: Change) -> float:
        return predict(JOB, name, cluster, profile(), change=change)[0]

    assert seconds(Change(compute=factor)) <= seconds(AS_IS) * (1 + 1e-12)
    assert seconds(Change(encoder=factor)) <= seconds(AS_IS) * (1 + 1e-12)
    assert seconds(Change(size=factor)) >= seconds(AS_IS) * (1 - 1e-12)
    assert seconds(Change(overlap=False)) >= seconds(AS_IS) * (1 - 1e-12)


def test_without_overlap_a_step_is_the_sum_of_its_parts() -> None:
    cost = EncodeCost(np.array([[0.0, 1e-9, 0.0]]))
    cluster = replace(FAST, slowdown=1.5)  # nothing communicates while the backward pass runs
    seconds = step_seconds(JOB, CANDIDATES["fp32"], cost, cluster, links(), change=Change(overlap=False))[0]
    assert seconds == pytest.approx(0.15 + 0.02 + 2 * 7 / 8 * 80e6 / (1e6 * MEGABIT))


def test_a_faster_device_is_a_scaled_workload() -> None:
    for name in ("fp32", "sign"):
        found = predict(JOB, name, FAST, profile(), change=Change(compute=4))
        assert found == pytest.approx(predict(JOB.scaled(JOB.backward / 4), name, FAST, profile()))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_factors_that_cannot_be_are_refused(value: float) -> None:
    for name in ("compute", "encoder", "size"):
        with pytest.raises(ArgumentError, match=name):
            replace(AS_IS, **{name: value})


def test_the_recommendation_is_the_best_of_everything() -> None:
    known = profile()
    found = recommend(JOB, SLOW, known)
    assert len(found.choices) == len(CANDIDATES) * len(BUCKET_CAPS)
    times = {(name, cap): predict(JOB, name, SLOW, known, cap)[0] for name in CANDIDATES for cap in BUCKET_CAPS}
    assert (found.best.name, found.best.bucket_bytes) == min(times, key=lambda key: times[key])
    base = min((key for key in times if key[0] in BASELINES), key=lambda key: times[key])
    assert (found.baseline.name, found.baseline.bucket_bytes) == base
    assert found.best.speedup.estimate == pytest.approx(times[base] / min(times.values()))
    assert f"{found.best.name} in buckets of" in found.answer
    assert KEPT[found.best.name] == 0.07
    assert "keeps 7 % of a gradient" in found.answer
    assert "of those that keep half or more, PowerSGD rank 4 in buckets of" in found.answer
    assert list(found.lines()) and all(len(line) == len(BUCKET_CAPS) for line in found.lines().values())


def test_where_nothing_helps_the_recommendation_is_the_baseline() -> None:
    found = recommend(JOB, FAST, profile(encode=1e-8), names=["sign"], caps=[2**20, 2**23])
    assert found.best is found.baseline
    assert "nothing is predicted to beat" in found.answer
    with pytest.raises(ArgumentError, match="caps"):
        recommend(JOB, FAST, profile(), caps=[])
    with pytest.raises(ArgumentError, match="gzip"):
        recommend(JOB, FAST, profile(), names=["gzip"])


def test_small_buckets_pay_for_latency_and_large_ones_for_waiting() -> None:
    slow_start = replace(profile(), links=links(16, latency=5e-3))
    small, middle, large = (
        predict(JOB, "fp32", Cluster(8, 1e4 * MEGABIT), slow_start, cap)[0] for cap in (2**20, 25 * 2**20, 2**30)
    )
    assert middle < small
    eager = predict(JOB, "fp32", Cluster(8, 1e4 * MEGABIT), profile(), 2**23)[0]
    assert eager < predict(JOB, "fp32", Cluster(8, 1e4 * MEGABIT), profile(), 2**30)[0]
    assert large > 0.15


@given(megabits=st.floats(100, 1e5), ranks=st.integers(2, 32), cap=st.sampled_from(BUCKET_CAPS))
def test_the_required_compression_just_hides_all_but_the_last_bucket(megabits: float, ranks: int, cap: int) -> None:
    cluster = Cluster(ranks, megabits * MEGABIT, competes=False)
    needed = required_compression(JOB, cluster, profile(), bucket_bytes=cap).estimate
    last = links().seconds("all_reduce", 4 * JOB.buckets(cap)[-1].elements, ranks, cluster.bandwidth)[0]

    def exposed(smaller: float) -> float:
        free = replace(profile(), costs={"fp32": EncodeCost(np.zeros((17, 3)))})
        seconds = predict(JOB, "fp32", cluster, free, cap, Change(size=1 / smaller))[0]
        return seconds - JOB.backward - JOB.other - last / smaller

    assert exposed(needed * 1.001) == pytest.approx(0.0, abs=1e-9)
    if needed > 1:
        assert exposed(needed / 1.01) > 0


def test_what_required_compression_is_at_the_ends() -> None:
    assert required_compression(JOB, Cluster(1, 1e6), profile()).estimate == 1
    assert required_compression(JOB, FAST, profile()).estimate == 1
    slow_start = replace(profile(), links=links(16, latency=1.0))
    found = required_compression(JOB, SLOW, slow_start)
    assert math.isinf(found.estimate)
    assert math.isinf(found.high)


def test_the_closed_form_of_equal_buckets() -> None:
    """(k - 1) T_ar(b / c) = T_comp, of which the time before the first bucket cannot be used."""
    job = even_workload("equal", [(1024, 1024)] * 10, 0.1)
    bandwidth = 1e8
    found = required_compression(job, Cluster(4, bandwidth), profile(), bucket_bytes=4 * 2**20).estimate
    assert found == pytest.approx(9 * 2 * 3 / 4 * 4 * 2**20 / bandwidth / (0.9 * 0.1))


def test_an_encoder_may_trade_speed_for_size() -> None:
    assert faster_encoder(4, 0) == Change(encoder=4)
    assert faster_encoder(4, 1) == Change(encoder=4, size=4)
    assert faster_encoder(4, 2, Change(compute=2, encoder=3)) == Change(compute=2, encoder=12, size=8)
    dear = profile(encode=1e-7)
    (line,) = sweep_changes(JOB, FAST, dear, ["sign"], [faster_encoder(one, 1) for one in FACTORS]).values()
    assert line[-1].estimate < line[0].estimate  # the link is fast
    assert all(one.low <= one.estimate <= one.high for one in line)


def test_every_answer_is_on_the_page_and_in_the_figures() -> None:
    known: Profile = profile()
    advice, found = advise(JOB, SLOW, known), explore(JOB, SLOW, known)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["kind"] == "modelled"
    assert len(document["choices"]) == len(CANDIDATES) * len(BUCKET_CAPS)
    assert set(document["faster_compute"]["seconds"]) == set(CANDIDATES)
    assert [one["size_for_speed"] for one in document["faster_encoders"]] == [0, 1, 2]
    assert set(document["overlap"]) == {"PowerSGD rank 4", "ACP-SGD rank 4"}
    beside, after = found.overlap["PowerSGD rank 4"]
    assert beside.estimate <= after.estimate
    assert document["required_compression"][0] == pytest.approx(found.required.estimate)
    page = render_advice(advice, [1e6, 1e9], sweep(JOB, SLOW, known, ["fp32"], [1e6, 1e9]), found, ["a note <b>"])
    assert page.count("<svg") == 1 + 1 + 1 + 3
    assert "a note &lt;b&gt;" in page
    for line in found.lines():
        assert line.split(":")[0] in page
    assert "linear scaling" in page


def test_an_infinite_answer_is_null_in_the_figures() -> None:
    slow_start = replace(profile(), links=links(16, latency=1.0))
    found = explore(JOB, SLOW, slow_start, names=["sign"])
    assert found.to_dict()["required_compression"] == [None] * 3
    assert any("latency alone" in line for line in found.lines())
    assert set(found.overlap) == {"PowerSGD rank 4", "ACP-SGD rank 4"}
