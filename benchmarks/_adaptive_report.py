"""The table of `adaptive_training`: scores by seed, bytes, and differences from other arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy import stats

from taut.stats import outperformance

BySeed: TypeAlias = Mapping[int, float]
FEWER = 1.5  # times fewer bytes than the low level: the target
FEWEST_SEEDS = 5


def report(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Print and return a row for each task and arm.

    Args:
        rows: finished runs, with task, arm, seed, score and bytes sent in each epoch.
    """
    scores: dict[str, dict[str, dict[int, float]]] = {}
    megabytes: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["task"], {}).setdefault(row["arm"], {})[row["seed"]] = row["score"]
        megabytes.setdefault(row["task"], {}).setdefault(row["arm"], []).append(sum(row["sent"]) / 1e6)
    found = []
    print(f"{'task':8}{'arm':10}{'seeds':>6}{'score':>9}{'95 % by seed':>20}{'MB':>9}{'fewer':>8}")
    for task, arms in scores.items():
        for arm, by_seed in arms.items():
            if len(by_seed) < 2:
                continue
            mean, low, high = interval(list(by_seed.values()))
            sent = float(np.mean(megabytes[task][arm]))
            fewer = float(np.mean(megabytes[task].get("low", [np.nan]))) / sent
            print(f"{task:8}{arm:10}{len(by_seed):6}{mean:9.3f}{f'{low:.3f} to {high:.3f}':>20}{sent:9.1f}{fewer:8.2f}")
            others = [other for other in arms if other != arm and (other == "low" or arm == "accordion")]
            against = {
                other: compared(by_seed, arms[other]) for other in others if len(arms[other].keys() & by_seed) > 1
            }
            for other, outcome in against.items():
                difference, first, last = outcome["difference"]
                said = f"{difference:+.3f} ({first:+.3f} to {last:+.3f}): {outcome['effect']}"
                print(f"{'':18}less {other}: {said}, P(A>B): {outcome['verdict']}")
            found.append(
                {"task": task, "arm": arm, "seeds": len(by_seed), "score": mean, "interval": [low, high]}
                | {
                    "scores": dict(sorted(by_seed.items())),
                    "megabytes": sent,
                    "times_fewer_than_low": fewer,
                    "against": against,
                }
            )
    return found


def claims(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Print and return for each task whether Accordion keeps what the paper promises.

    Args:
        found: rows of `report`.
    """
    rows = {(row["task"], row["arm"]): row for row in found}
    told = []
    for task in dict.fromkeys(task for task, _ in rows):
        low, own = rows.get((task, "low")), rows.get((task, "accordion"))
        if low is None or own is None:
            continue
        claim = {
            "task": task,
            "not_below_interval_of_low": own["score"] >= low["interval"][0],
            "times_fewer_than_low": own["times_fewer_than_low"],
            "enough_fewer": own["times_fewer_than_low"] >= FEWER,
            "effects": {other: outcome["effect"] for other, outcome in own["against"].items()},
        }
        told.append(claim)
        place = "not below" if claim["not_below_interval_of_low"] else "BELOW"
        effects = ", ".join(f"{effect} against {other}" for other, effect in claim["effects"].items())
        fewer = f"{claim['times_fewer_than_low']:.2f}x fewer bytes (target {FEWER:g}x)"
        print(f"{task}: Accordion's score is {place} the interval of low at {fewer}; {effects}")
    return told


def compared(scores: BySeed, others: BySeed) -> dict[str, Any]:
    """Differences of the common seeds with their interval, what that says, and the verdict on P(A>B).

    The effect "ties" is no proof that both are equal: the interval says how far apart they may be.
    """
    seeds = sorted(scores.keys() & others.keys())
    first, second = ([values[seed] for seed in seeds] for values in (scores, others))
    outcome = outperformance(first, second, paired=True)
    difference = interval([a - b for a, b in zip(first, second, strict=True)])
    return {
        "difference": difference,
        "effect": effect(difference, len(seeds)),
        "verdict": outcome.verdict,
        "p_value": outcome.p_value,
    }


def effect(difference: tuple[float, float, float], seeds: int) -> str:
    """What the interval of a difference says: "helps", "hurts", "ties", or "too few seeds"."""
    if seeds < FEWEST_SEEDS:  # scores are counts of test data: a few differences may be equal by chance
        return "too few seeds"
    return "helps" if difference[1] > 0 else "hurts" if difference[2] < 0 else "ties"


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of some seeds with Student's interval at 95 %."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half
