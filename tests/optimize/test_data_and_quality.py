"""The user's data, the metrics and the quality gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats as scipy_stats

from taut.errors import ArgumentError, DataError
from taut.graph import capture
from taut.optimize import METRICS, Limit, check_inputs, choose_metric, load_data, match_labels, synthesise
from taut.optimize._data import thin_out
from taut.optimize._quality import Judge, collect


def test_one_tuple_is_cut_into_full_batches() -> None:
    dataset = load_data({"inputs": (torch.arange(10.0).reshape(10, 1),), "labels": torch.arange(10)}, batch_size=4)
    assert [len(batch[0]) for batch in dataset.batches] == [4, 4]
    assert match_labels(dataset, 4).labels is not None
    assert len(match_labels(dataset, 4).labels) == 8  # pyright: ignore[reportArgumentType]
    assert dataset.batches[1][0][0, 0] == 4


def test_fewer_samples_than_a_batch_make_one_small_batch() -> None:
    dataset = load_data({"inputs": (torch.zeros(3, 2),)}, batch_size=32)
    assert dataset.samples == 3


def test_a_list_keeps_its_own_batches() -> None:
    dataset = load_data(
        {"inputs": [(torch.zeros(2, 5),), (torch.zeros(4, 9),)], "labels": torch.zeros(3)}, batch_size=1
    )
    assert dataset.samples == 6
    assert match_labels(dataset, 1) == dataset


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_array_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    arrays = {"input_0": np.ones((4, 3), np.float32), "input_1": np.zeros((4, 1), np.int64), "labels": np.arange(4)}
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: torch.from_numpy(value) for name, value in arrays.items()}, path)
    dataset = load_data(str(path), batch_size=2)
    assert [tensor.dtype for tensor in dataset.batches[0]] == [torch.float32, torch.int64]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        load_data(str(path), batch_size=2)


def test_an_array_file_with_a_pickle_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", input_0=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        load_data(str(tmp_path / "p.npz"), batch_size=2)


@pytest.mark.parametrize(
    ("mapping", "word"),
    [
        ([1, 2], "got a list"),
        ({"input": 1}, "mapping"),
        ({"inputs": (torch.zeros(3, 1), torch.zeros(4, 1))}, r"\[3, 4\] samples"),
        ({"inputs": []}, "no samples"),
        ({"inputs": (torch.zeros(0, 3),)}, "no samples"),
        ({"inputs": (torch.tensor(1.0),)}, "scalar"),
        ({"inputs": ("text",)}, "input 0"),
        ({"inputs": (torch.zeros(3, 1),), "labels": torch.tensor([0.0, float("nan"), 1.0])}, "labels hold NaN"),
    ],
)
def test_malformed_data_is_named(mapping: object, word: str) -> None:
    with pytest.raises(DataError, match=word):
        load_data(mapping, batch_size=2)  # pyright: ignore[reportArgumentType]


def test_labels_must_line_up() -> None:
    with pytest.raises(DataError, match="7 labels for 4 samples"):
        match_labels(load_data({"inputs": [(torch.zeros(4, 1),)], "labels": torch.zeros(7)}, batch_size=2), 2)


def test_thinning_keeps_labels_with_their_samples_and_spreads_evenly() -> None:
    inputs = [(torch.full((4, 1), float(index)),) for index in range(100)]
    labels = torch.arange(100).repeat_interleave(2)  # one label for two samples
    fewer = thin_out(load_data({"inputs": inputs, "labels": labels}, batch_size=1), 10)
    assert [int(batch[0][0, 0]) for batch in fewer.batches] == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert fewer.labels is not None
    assert fewer.labels.tolist() == [5, 5, 15, 15, 25, 25, 35, 35, 45, 45, 55, 55, 65, 65, 75, 75, 85, 85, 95, 95]
    assert thin_out(fewer, 10) is fewer
    crossing = load_data({"inputs": [(torch.zeros(3, 1),)] * 4, "labels": torch.zeros(6)}, batch_size=1)
    assert thin_out(crossing, 2) is crossing


def test_inputs_are_checked_against_the_graph() -> None:
    graph = capture(torch.nn.Linear(4, 3), (torch.zeros(8, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    good = torch.zeros(5, 4)
    check_inputs(load_data({"inputs": [(good,)]}, batch_size=1), graph)
    bad = good.clone()
    bad[3, 2] = float("nan")
    for batch, word in [
        ((torch.zeros(5, 3),), r"shape \(5, 3\)"),
        ((good, good), "has 2 inputs"),
        ((good.double(),), "torch.float64"),
        ((bad,), "sample 3"),
    ]:
        with pytest.raises(DataError, match=word):
            check_inputs(load_data({"inputs": [batch]}, batch_size=1), graph)


def test_synthetic_inputs_look_like_the_example() -> None:
    example = (torch.randn(64, 50) * 3 + 7, torch.tensor([[5, 9], [5, 5]]))
    dataset = synthesise(example)
    assert dataset.synthetic
    floats = torch.cat([batch[0] for batch in dataset.batches])
    assert abs(float(floats.mean()) - 7) < 0.2
    assert abs(float(floats.std()) - 3) < 0.2
    assert set(torch.cat([batch[1] for batch in dataset.batches]).unique().tolist()) <= {5, 9}
    assert not torch.equal(dataset.batches[0][0], dataset.batches[1][0])


def test_metrics_agree_with_an_independent_computation() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=50), rng.integers(0, 5, 50)
    assert METRICS["spearman"].score(scores, labels) == pytest.approx(scipy_stats.spearmanr(scores, labels)[0])
    pairs = rng.normal(size=(100, 8))
    cosines = torch.cosine_similarity(torch.from_numpy(pairs[0::2]), torch.from_numpy(pairs[1::2])).numpy()
    assert METRICS["pair-spearman"].score(pairs, labels) == pytest.approx(scipy_stats.spearmanr(cosines, labels)[0])
    logits = rng.normal(size=(50, 5))
    assert METRICS["accuracy"].score(logits, labels) == pytest.approx((logits.argmax(1) == labels).mean())
    assert METRICS["mse"].score(scores, labels) == pytest.approx(((scores - labels) ** 2).mean())


def test_choice_of_metric() -> None:
    assert choose_metric(None, torch.tensor([1, 2])).name == "accuracy"
    assert choose_metric(None, None).name == "cosine"
    with pytest.raises(DataError, match="needs labels"):
        choose_metric("accuracy", None)
    with pytest.raises(ArgumentError, match="--metric"):
        choose_metric("f2", torch.zeros(3))

    def broken(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        raise RuntimeError("no")

    with pytest.raises(DataError, match="broken raised RuntimeError"):
        choose_metric(broken, torch.zeros(3)).score(np.zeros(3), np.zeros(3))


def test_limits() -> None:
    assert Limit.parse("1%").absolute(0.8) == pytest.approx(0.008)
    assert Limit.parse("0.005").absolute(0.8) == pytest.approx(0.005)
    for wrong in ("x", "-1%", "nan", "inf", ""):
        with pytest.raises(ArgumentError, match="--max-drop"):
            Limit.parse(wrong)


def judged(flips: int, samples: int = 2000, limit: str = "1%"):
    """A classifier on `samples` samples whose candidate gets `flips` more of them wrong."""
    labels = torch.randint(0, 10, (samples,), generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.one_hot(labels, 10).float()
    worse = logits.clone()
    worse[:flips] = worse[:flips].roll(1, dims=1)
    dataset = load_data({"inputs": [(logits,)], "labels": labels}, batch_size=1)
    baseline = collect(lambda batch: batch, dataset, what="original")
    judge = Judge(dataset, METRICS["accuracy"], Limit.parse(limit), baseline)
    return judge.judge(lambda _: worse, what="candidate")


def test_a_candidate_that_breaks_quality_is_out_and_the_figure_is_given() -> None:
    broken = judged(flips=100)
    assert not broken.within_limit
    assert broken.candidate == pytest.approx(0.95)
    assert broken.low <= -0.05 <= broken.high


def test_a_small_loss_is_within_the_limit_only_if_the_interval_says_so() -> None:
    assert judged(flips=4).within_limit
    assert not judged(flips=19).within_limit  # 0.95 % lost, but 1.4 % is not excluded
    assert not judged(flips=0, samples=100).within_limit  # 100 samples cannot show a loss below 1 %
    assert judged(flips=0, samples=100, limit="5%").within_limit


def test_lower_is_better_turns_the_gate_round() -> None:
    inputs = torch.randn(400, 1, generator=torch.Generator().manual_seed(1))
    labels = inputs + 1.0
    dataset = load_data({"inputs": [(inputs,)], "labels": labels}, batch_size=1)
    judge = Judge(dataset, METRICS["mse"], Limit.parse("1%"), collect(lambda batch: batch, dataset, what="original"))
    assert judge.judge(lambda batch: batch + 0.1, what="better").within_limit
    assert not judge.judge(lambda batch: batch - 0.1, what="worse").within_limit


def test_outputs_that_are_not_finite_or_not_by_sample_are_named() -> None:
    dataset = load_data({"inputs": [(torch.zeros(4, 2),)]}, batch_size=1)
    with pytest.raises(DataError, match="NaN"):
        collect(lambda batch: batch / 0, dataset, what="candidate")
    with pytest.raises(DataError, match="samples"):
        collect(lambda batch: batch.sum(), dataset, what="candidate")
    with pytest.raises(DataError, match="without a tensor"):
        collect(lambda batch: "text", dataset, what="candidate")
    assert collect(lambda batch: {"logits": (batch,)}, dataset, what="candidate")[0].shape == (4, 2)


@pytest.mark.parametrize(
    ("metric", "outputs", "labels"),
    [
        ("accuracy", (64, 3), (64, 3)),
        ("mse", (64, 3), (64,)),
        ("spearman", (64, 3), (64,)),
    ],
)
def test_labels_that_do_not_fit_the_metric(metric: str, outputs: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=f"metric {metric}: labels have shape"):
        METRICS[metric].score(np.zeros(outputs), np.zeros(labels))


def test_labels_in_a_column_do_not_broadcast() -> None:
    classes = np.arange(3).repeat(4)
    assert METRICS["accuracy"].score(np.eye(3)[classes], classes[:, None]) == 1.0


def test_bfloat16_labels_are_scored() -> None:
    dataset = load_data({"inputs": (torch.zeros(4, 1),), "labels": torch.ones(4, 1).bfloat16()}, batch_size=2)
    assert dataset.labels is not None
    assert dataset.labels.dtype is torch.float32


def test_both_parts_of_complex_outputs_count() -> None:
    dataset = load_data({"inputs": (torch.ones(4, 2),)}, batch_size=2)
    (first, _) = collect(lambda x: torch.complex(x, 2 * x), dataset, what="model")
    assert first[0].tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_a_metric_that_exits_is_an_error_of_the_metric() -> None:
    def leaves(_outputs: torch.Tensor, _labels: torch.Tensor) -> float:
        raise SystemExit(0)

    with pytest.raises(DataError, match="SystemExit"):
        choose_metric(leaves, torch.zeros(2)).score(np.zeros(2), np.zeros(2))


def test_a_metric_that_some_samples_leave_undefined_fails_before_anything_is_measured() -> None:
    def share_of_first_class(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        if not (labels == 0).any():
            raise ValueError("only one class present")
        return float((outputs.argmax(1) == labels)[labels == 0].float().mean())

    inputs, labels = torch.eye(2).repeat(8, 1), torch.ones(16)
    labels[0] = 0
    dataset = load_data({"inputs": [(inputs,)], "labels": labels}, batch_size=1)
    metric = choose_metric(share_of_first_class, labels)
    with pytest.raises(DataError, match="only one class"):
        Judge(dataset, metric, Limit.parse("1%"), collect(lambda batch: batch, dataset, what="original"))


def test_a_users_metric_may_look_at_groups() -> None:
    inputs = torch.randn(40, 3)
    dataset = load_data({"inputs": [(inputs,)], "labels": torch.zeros(20)}, batch_size=1)
    metric = choose_metric(lambda outputs, labels: float(len(outputs) / len(labels)), dataset.labels)
    judge = Judge(dataset, metric, Limit.parse("1%"), collect(lambda batch: batch, dataset, what="original"))
    assert judge.baseline_score == 2.0
