"""Quality of a candidate against the original, with an interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from taut.errors import ArgumentError, DataError
from taut.optimize._data import Dataset, rows
from taut.optimize._metrics import Metric
from taut.stats import Interval, paired_bootstrap

Model = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Limit:
    """How much quality may be lost: `amount` in the metric's unit, or a share of the baseline if `relative`."""

    amount: float
    relative: bool

    @staticmethod
    def parse(text: str | float) -> Limit:
        """Read "1%" (a share of the baseline) or "0.005" (in the metric's own unit).

        Raises:
            ArgumentError: neither, or negative.
        """
        written = str(text).strip()
        relative = written.endswith("%")
        try:
            amount = float(written.removesuffix("%")) / (100 if relative else 1)
        except ValueError:
            amount = -1.0
        if not 0 <= amount < float("inf"):
            raise ArgumentError(
                "--max-drop", text, expected='a share such as "1%" or an amount such as "0.005", not negative'
            )
        return Limit(amount, relative)

    def absolute(self, baseline: float) -> float:
        """The limit in the metric's unit."""
        return self.amount * abs(baseline) if self.relative else self.amount

    @property
    def text(self) -> str:
        """As `parse` reads it."""
        return f"{100 * self.amount:.6g}%" if self.relative else f"{self.amount:.6g}"


@dataclasses.dataclass(frozen=True)
class Quality:
    """A candidate's score beside the original's.

    Attributes:
        baseline: the original's score.
        candidate: the candidate's score.
        low, high: interval of candidate minus baseline.
        confidence: of the interval.
        drop: what is lost at worst by the interval, in the metric's unit; negative is a gain.
        allowed: the limit in the metric's unit.
    """

    baseline: float
    candidate: float
    low: float
    high: float
    confidence: float
    drop: float
    allowed: float

    @property
    def within_limit(self) -> bool:
        """True if even the pessimistic end of the interval keeps the limit."""
        return self.drop <= self.allowed


def first_tensor(output: Any) -> torch.Tensor:
    """The first tensor in an output structure: what metrics look at.

    Raises:
        DataError: there is none.
    """
    pending = [output]
    while pending:
        item = pending.pop(0)
        if isinstance(item, torch.Tensor):
            return item
        if isinstance(item, Mapping):
            pending[:0] = list(item.values())
        elif isinstance(item, Sequence) and not isinstance(item, str):
            pending[:0] = list(item)
    raise DataError(f"the model returned a {type(output).__name__} without a tensor", expected="a tensor to score")


def collect(model: Model, dataset: Dataset, *, what: str) -> list[np.ndarray]:
    """Run all batches; one array (samples, ...) in float32 or integers for each.

    Raises:
        DataError: outputs are not finite, or do not have the samples first.
    """
    collected = []
    with torch.inference_mode():
        for index, batch in enumerate(dataset.batches):
            tensor = first_tensor(model(*batch))
            if tensor.is_complex():
                tensor = torch.view_as_real(tensor.resolve_conj())
            if tensor.is_floating_point():
                tensor = tensor.float()
                if not bool(torch.isfinite(tensor).all()):
                    raise DataError(f"{what}: output of batch {index} holds NaN or infinity")
            if tensor.dim() == 0 or tensor.shape[0] != rows(batch):
                raise DataError(
                    f"{what}: output of batch {index} has shape {tuple(tensor.shape)} for {rows(batch)} samples",
                    expected="the samples in the first dimension of the first output",
                )
            collected.append(tensor.cpu().numpy())
    return collected


class Judge:
    """Scores candidates against the original's outputs.

    Args:
        dataset: what to run.
        metric: the score.
        limit: how much may be lost.
        baseline: the original's outputs, as `collect` returns them.

    Raises:
        DataError: labels and outputs do not fit together, or the baseline's score is not finite.
    """

    confidence = 0.95

    def __init__(self, dataset: Dataset, metric: Metric, limit: Limit, baseline: list[np.ndarray]) -> None:
        self.metric = metric
        self.limit = limit
        self._dataset = dataset
        self._baseline = _stack(baseline, metric)
        if metric.needs_labels:
            assert dataset.labels is not None
            self._labels = dataset.labels.cpu().numpy()
        else:
            self._labels = self._baseline
        self._units = len(self._labels) if metric.needs_labels else len(self._baseline)
        if self._units == 0 or len(self._baseline) % self._units:
            raise DataError(
                f"{len(self._baseline)} outputs for {self._units} labels", expected="a whole number of outputs a label"
            )
        self._group = len(self._baseline) // self._units
        if metric.group and self._group != metric.group:
            raise DataError(
                f"metric {metric.name}: {len(self._baseline)} outputs for {self._units} labels",
                expected=f"{metric.group} output(s) for each label",
            )
        if self._units < 2:
            raise DataError(
                f"{dataset.source}: {self._units} scored sample", expected="2 or more, so that quality has an interval"
            )
        self.baseline_score = self._score(self._baseline, np.arange(self._units))
        if not np.isfinite(self.baseline_score):
            raise DataError(
                f"metric {metric.name} of the original model is {self.baseline_score}", expected="a finite number"
            )
        # A metric that some choices of samples leave undefined shall fail now, not at the proof.
        self._change(self._baseline)

    @property
    def units(self) -> int:
        """The number of scored units: samples, or groups of them."""
        return self._units

    def _score(self, outputs: np.ndarray, units: np.ndarray) -> float:
        picked = outputs.reshape(self._units, self._group, *outputs.shape[1:])[units]
        return self.metric.score(picked.reshape(-1, *outputs.shape[1:]), self._labels[units])

    def _change(self, outputs: np.ndarray) -> Interval:
        return paired_bootstrap(
            lambda units: self._score(outputs, units) - self._score(self._baseline, units),
            self._units,
            confidence=self.confidence,
            bounded=self.metric.proportion,
        )

    def judge(self, model: Model, *, what: str) -> Quality:
        """Run a candidate on all samples and compare, by paired bootstrap over samples."""
        outputs = _stack(collect(model, self._dataset, what=what), self.metric)
        sign = 1.0 if self.metric.higher_is_better else -1.0
        score = self._score(outputs, np.arange(self._units))
        interval = self._change(outputs)
        worst = -interval.low if sign > 0 else interval.high
        return Quality(
            self.baseline_score,
            score,
            interval.low,
            interval.high,
            self.confidence,
            worst,
            self.limit.absolute(self.baseline_score),
        )

    def explain(self, quality: Quality) -> str:
        """What a candidate loses, and what it may lose."""
        return (
            f"{self.metric.name} {quality.baseline:.5g} -> {quality.candidate:.5g}; may lose {quality.drop:.2g} by the "
            f"{quality.confidence:.0%} interval over {self.units} samples, allowed {quality.allowed:.2g}"
        )


def _stack(outputs: list[np.ndarray], metric: Metric) -> np.ndarray:
    if len({part.shape[1:] for part in outputs}) == 1:
        return np.concatenate(outputs)
    if metric.needs_labels:
        shapes = sorted({part.shape[1:] for part in outputs})
        raise DataError(
            f"outputs have different shapes {shapes[:4]} from batch to batch",
            fix="use --metric cosine, or return pooled outputs",
        )
    width = max(int(np.prod(part.shape[1:])) for part in outputs)
    padded = [
        np.pad(part.reshape(len(part), -1), ((0, 0), (0, width - int(np.prod(part.shape[1:]))))) for part in outputs
    ]
    return np.concatenate(padded)
