"""What the benchmark of the controller's cost puts into its figures."""

from __future__ import annotations

import pytest
import torch
from benchmarks._trainings import digits
from benchmarks.controller_overhead import WARM_UP, measure

from taut.distributed import Accordion


def test_every_gradient_is_watched_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn's digits are not installed")
    watched: list[str] = []
    observe = Accordion.observe

    def noted(self: Accordion, name: str, gradient: torch.Tensor) -> None:
        watched.append(name)
        observe(self, name, gradient)

    monkeypatch.setattr(Accordion, "observe", noted)
    row = measure("digits", digits(), steps=20)
    assert len(watched) == 6 * (20 + WARM_UP)
    assert row["parameters"] == 85_002
    estimate, low, high = row["share"]
    assert 0 < low <= estimate <= high
