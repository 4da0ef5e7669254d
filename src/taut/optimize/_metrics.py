"""Quality metrics over a model's outputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from scipy import stats

from taut.errors import ArgumentError, DataError, TautError
from taut.optimize._load import load_function

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of outputs against labels.

    Attributes:
        name: what the user calls it.
        score: (outputs (n, ...), labels (n, ...)) -> a float.
        higher_is_better: the direction.
        needs_labels: False for a metric that compares with the unmodified model's outputs, which then stand in for
            the labels.
        group: how many consecutive outputs share a label; 0 for any number.
        proportion: True if the score is a share of samples, so that an unseen event has a known upper bound.
    """

    name: str
    score: Callable[[np.ndarray, np.ndarray], float]
    higher_is_better: bool = True
    needs_labels: bool = True
    group: int = 1
    proportion: bool = False


def _shaped(labels: np.ndarray, shape: tuple[int, ...], metric: str) -> np.ndarray:
    """The labels in the shape of what they are compared with; labels that only broadcast to it would count wrongly."""
    if labels.size != math.prod(shape):
        raise DataError(
            f"metric {metric}: labels have shape {labels.shape}, the outputs give {shape}",
            expected="as many labels as there are values to score",
            fix="choose another --metric, or change the labels",
        )
    return labels.reshape(shape)


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    classes = outputs.argmax(axis=-1)
    return float(np.mean(classes == _shaped(labels, classes.shape, "accuracy")))


def _rank_correlation(scores: np.ndarray, labels: np.ndarray) -> float:
    ranks = stats.rankdata(scores), stats.rankdata(labels)
    if np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _spearman(outputs: np.ndarray, labels: np.ndarray) -> float:
    return _rank_correlation(outputs.reshape(-1), _shaped(labels, (outputs.size,), "spearman"))


def _pair_spearman(outputs: np.ndarray, labels: np.ndarray) -> float:
    pairs = _row_cosines(outputs[0::2], outputs[1::2])
    return _rank_correlation(pairs, _shaped(labels, pairs.shape, "pair-spearman"))


def _mean_squared_error(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.square(outputs - _shaped(labels, outputs.shape, "mse"))))


def _row_cosines(a: np.ndarray, b: np.ndarray) -> FloatArray:
    first, second = (np.asarray(side, dtype=np.float64).reshape(len(side), -1) for side in (a, b))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.einsum("ij,ij->i", first, second) / np.maximum(norms, 1e-300)


def _cosine(outputs: np.ndarray, reference: np.ndarray) -> float:
    return float(np.mean(_row_cosines(outputs, reference)))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", _accuracy, proportion=True),
        Metric("spearman", _spearman),
        Metric("pair-spearman", _pair_spearman, group=2),
        Metric("mse", _mean_squared_error, higher_is_better=False),
        Metric("cosine", _cosine, needs_labels=False),
    )
}
"""The built-in metrics. `pair-spearman`: rows 2i and 2i+1 are the embeddings of a pair, label i its score."""


def choose_metric(metric: str | Callable[..., float] | None, labels: torch.Tensor | None) -> Metric:
    """The metric the user asked for; without a wish accuracy for integer labels, else cosine to the original outputs.

    Args:
        metric: a built-in name, `path.py:function`, a callable (outputs, labels) -> float, or None.
        labels: the data's labels, or None.

    Raises:
        ArgumentError: an unknown name.
        DataError: the metric needs labels and there are none.
    """
    if metric is None:
        classes = labels is not None and not labels.is_floating_point()
        return METRICS["accuracy" if classes else "cosine"]
    if callable(metric):
        chosen = _user_metric(metric, getattr(metric, "__name__", "metric"))
    elif metric in METRICS:
        chosen = METRICS[metric]
    elif ":" in metric:
        function, name = load_function(metric, argument="--metric")
        chosen = _user_metric(function, name)
    else:
        raise ArgumentError("--metric", metric, expected=f"one of {', '.join(METRICS)} or path.py:function")
    if chosen.needs_labels and labels is None:
        raise DataError(
            f"metric {chosen.name} needs labels, and the data has none",
            fix='add "labels" to the data, or use --metric cosine, which compares with the original outputs',
        )
    return chosen


def _user_metric(function: Callable[..., Any], name: str) -> Metric:
    def score(outputs: np.ndarray, labels: np.ndarray) -> float:
        try:
            return float(function(torch.from_numpy(outputs), torch.from_numpy(labels)))
        except TautError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(
                f"metric {name} raised {type(error).__name__}: {error}",
                expected="a function (outputs (n, ...), labels (n, ...)) -> float",
            ) from error

    return Metric(name, score, group=0)
