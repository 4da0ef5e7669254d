"""Choose a scheme for each layer: the least error under a budget, with a certificate."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from taut.errors import ArgumentError, TransformError
from taut.transform.quantisation._sensitivity import SensitivityEntry, SensitivityTable


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """A scheme for each layer.

    Attributes:
        schemes: scheme by layer.
        error: sum of the layers' errors, each as measured alone.
        cost: bytes or seconds of the whole graph, as the table has them.
        budget: what the cost may be at most.
        by: what the budget counts.
        bound: a proven lower bound of the error of every assignment within the budget.
    """

    schemes: dict[str, str]
    error: float
    cost: float
    budget: float
    by: Literal["bytes", "seconds"]
    bound: float

    @property
    def gap(self) -> float:
        """How far, relative to its error, the assignment may be from the best one; 0 where it is proven best."""
        return 0.0 if self.error <= self.bound else (self.error - self.bound) / self.error

    @property
    def layers(self) -> list[str]:
        """The option `layers` of the pass `quantise`."""
        return [f"{layer}={scheme}" for layer, scheme in self.schemes.items()]


def assign(table: SensitivityTable, *, budget: float, by: Literal["bytes", "seconds"] = "bytes") -> Assignment:
    """Choose a scheme for each layer such that the summed error is least and the graph keeps within a budget.

    A multiple-choice knapsack, solved exactly by branch and bound (HiGHS through `scipy.optimize.milp`).

    Args:
        table: from `measure_sensitivity`, with every layer measured at every scheme.
        budget: what the graph's constants (bytes), or its modelled run (seconds), may take at most.
        by: what the budget counts.

    Raises:
        ArgumentError: for an unfinished table, a table without seconds, or a budget below the least one possible,
            which the message names.
        TransformError: if the solver gives up.
    """
    if by not in ("bytes", "seconds"):
        raise ArgumentError("by", by, expected="'bytes' or 'seconds'")
    choices = _choices(table, by)
    rest = table.rest_bytes if by == "bytes" else table.rest_seconds
    least = rest + sum(min(_cost(entry, by) for entry in options) for options in choices)
    if not budget >= least:
        raise ArgumentError(
            "budget",
            budget,
            expected=f"at least {least:.9g} {by}: the cheapest scheme for every layer",
            fix="raise the budget, or measure a smaller scheme",
        )
    picked, bound = _solve(choices, budget - rest, by)
    error = sum(entry.error for entry in picked)
    cost = rest + sum(_cost(entry, by) for entry in picked)
    return Assignment(
        {entry.layer: entry.scheme for entry in picked}, error, cost, budget, by, min(max(bound, 0.0), error)
    )


def _choices(table: SensitivityTable, by: str) -> list[list[SensitivityEntry]]:
    """For each layer the schemes that none beats in both error and cost."""
    missing = table.missing
    if missing:
        layer, scheme = missing[0]
        raise ArgumentError(
            "table",
            f"{len(missing)} combinations missing",
            expected=f"every layer at every scheme; {layer} lacks {scheme}",
            fix="let measure_sensitivity finish",
        )
    if by == "seconds" and any(entry.seconds is None for entry in table.entries):
        raise ArgumentError("by", by, expected="'bytes'", fix="give measure_sensitivity a cost_model")
    found = []
    for layer in table.layers:
        options = sorted(
            (entry for entry in table.entries if entry.layer == layer),
            key=lambda entry: (_cost(entry, by), entry.error),
        )
        least = itertools.accumulate((entry.error for entry in options), min, initial=float("inf"))
        found.append([entry for entry, so_far in zip(options, least, strict=False) if entry.error < so_far])
    return found


def _solve(choices: list[list[SensitivityEntry]], budget: float, by: str) -> tuple[list[SensitivityEntry], float]:
    """The best choice and a bound.

    The solver's tolerances are absolute. Each round scales errors by the best sum so far and drops the options whose
    error alone exceeds it, until the sum no longer falls: the tolerance is then relative to the result.
    """
    picked = [min(options, key=lambda entry: _cost(entry, by)) for options in choices]
    best, bound = sum(entry.error for entry in picked), 0.0
    while best > 0:
        kept = [[entry for entry in options if entry.error <= best] for options in choices]
        found, bound = _round(kept, budget, by, best)
        error = sum(entry.error for entry in found)
        improved = error < best * (1 - 1e-3)
        if error < best:
            picked, best = found, error
        if not improved:
            break
    return picked, bound


def _round(
    choices: list[list[SensitivityEntry]], budget: float, by: str, scale: float
) -> tuple[list[SensitivityEntry], float]:
    flat = [entry for options in choices for entry in options]
    errors = np.array([entry.error for entry in flat]) / scale
    costs = np.array([_cost(entry, by) for entry in flat])
    unit = max(float(costs.max(initial=0.0)), 1e-300)
    rows = np.zeros((len(choices), len(flat)))
    start = 0
    for index, options in enumerate(choices):
        rows[index, start : start + len(options)] = 1
        start += len(options)
    allowed = budget / unit
    while True:
        result = milp(
            errors,
            constraints=[LinearConstraint(rows, 1, 1), LinearConstraint(costs[None, :] / unit, -np.inf, allowed)],
            integrality=np.ones(len(flat)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )
        if result.x is None:
            raise TransformError(f"the assignment was not solved: {result.message}", fix="measure fewer schemes")
        picked = [entry for entry, share in zip(flat, result.x, strict=True) if share > 0.5]
        spent = sum(_cost(entry, by) for entry in picked)
        if spent <= budget:
            return picked, float(result.mip_dual_bound) * scale
        allowed -= (spent - budget) / unit  # the solver's tolerance let a choice through that is too dear


def _cost(entry: SensitivityEntry, by: str) -> float:
    cost = entry.bytes if by == "bytes" else entry.seconds
    assert cost is not None
    return cost
