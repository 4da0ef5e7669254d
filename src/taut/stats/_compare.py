"""The paired comparison: which of two callables is faster, and how sure that is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from taut.errors import ArgumentError, MeasurementError
from taut.stats._arms import Runnable, TimedArm, as_arm
from taut.stats._clock import Clock, resolve_clock
from taut.stats._result import PairedResult, Stopped, Verdict
from taut.stats._sequential import plan_looks
from taut.stats._signed_rank import hodges_lehmann, signed_rank_interval

# Arms whose speeds differ by less than this run equally many calls a block, so that identical arms are exchangeable.
_COMMON_REPEATS_WITHIN = 4.0
_WARM_UP_BLOCKS = 5
# The interval needs all averages of two pairs in memory.
_MOST_PAIRS = 5000
# Wall seconds before the first look: what was decided within a single disturbance of the host, e.g. while the scheduler
# kept one of two processes on the busier core, would hold for that moment only.
_SHORTEST_SPAN = 0.4


def compare(
    baseline: TimedArm | Runnable,
    candidate: TimedArm | Runnable,
    *,
    alpha: float = 0.01,
    min_effect: float = 0.01,
    budget: float = 20.0,
    clock: Literal["wall", "process_cpu", "thread_cpu"] | Clock = "wall",
    min_block: float = 0.003,
    max_pairs: int = 2000,
    seed: int | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> PairedResult:
    """Decide whether the candidate is faster than the baseline, by interleaved pairs of timed blocks.

    Each pair times one block of each arm in an order drawn by a fair coin. If the arms are identical, the sign of each
    pair's log ratio is therefore a fair coin as well, however the host drifts or bursts, and the signed-rank test on
    them is exact; at other ratios it also needs disturbances that stretch both arms by like factors. The interval for
    the ratio is that test inverted; it is looked at after growing numbers of pairs at levels that add up to `alpha`
    (see `LookPlan`), so stopping early does not raise the error rate.

    The candidate is "faster" if the whole interval lies above 1 + min_effect, "slower" if it lies below
    1 / (1 + min_effect); if it lies between the two the arms are equivalent for the purpose and the comparison ends
    early with "no evidence". The margin is also what protects against lasting differences that randomisation cannot
    remove, such as the placement in memory of two copies of one model.

    Where more threads want to run than there are cores, waiting for a core adds to both arms alike and draws the ratio
    towards 1 (a planted 1.05 was seen as 1.03 at four runnable threads a core): identical arms are still told as such,
    but the size of an effect is then understated and its interval may miss it. `quietness` tells whether this is so.

    Args:
        baseline: what there is now.
        candidate: what might replace it.
        alpha: largest probability of an interval that misses the ratio.
        min_effect: differences up to this share are of no interest.
        budget: wall seconds to spend; the first call of each arm, which may compile, is not counted, and one pair is
            timed even if it takes longer.
        clock: what the calls are timed with; use a CPU clock only for work that does not wait for other threads.
        min_block: shortest wall seconds of a block, reached by repeating the call.
        max_pairs: most pairs to time, up to 5000.
        seed: of the order within pairs; drawn by the system if None.
        progress: called after each pair with the number of pairs and the seconds spent so far.

    Raises:
        ArgumentError: if an argument is out of range.
        MeasurementError: if an arm raises, its process dies, or the clock does not advance.
    """
    for name, value, valid, expected in (
        ("alpha", alpha, 0 < alpha < 1, "a probability between 0 and 1, exclusive"),
        ("min_effect", min_effect, 0 <= min_effect < math.inf, "a share of 0 or more, e.g. 0.01"),
        ("budget", budget, 0 < budget < math.inf, "seconds above 0"),
        ("min_block", min_block, 0 <= min_block < math.inf, "seconds of 0 or more"),
        ("max_pairs", max_pairs, 1 <= max_pairs <= _MOST_PAIRS, f"1 to {_MOST_PAIRS}"),
    ):
        if not valid:
            raise ArgumentError(name, value, expected=expected)
    source = resolve_clock(clock)
    began = source.wall()
    arms = (as_arm(baseline, "baseline"), as_arm(candidate, "candidate"))
    for arm in arms:
        arm.time_block(1, source)
    start = source.wall()
    blocks = _plan_blocks(arms, source, min_block=min_block, budget=budget)
    seconds_a_pair = sum(block.seconds for block in blocks)
    capacity = min(max_pairs, int((budget - (source.wall() - start)) / max(seconds_a_pair, 1e-9)))
    plan = plan_looks(alpha, capacity, first=int(min(_SHORTEST_SPAN, budget / 10) / max(seconds_a_pair, 1e-9)))
    margin = math.log1p(min_effect)

    coin = random.Random(seed)
    times: tuple[list[float], list[float]] = ([], [])
    log_ratios: list[float] = []
    low, high = -math.inf, math.inf
    stopped: Stopped = "budget"
    pending = list(plan.looks)
    while True:
        first = coin.getrandbits(1)
        for index in (first, 1 - first):
            times[index].append(blocks[index].time(source))
        log_ratios.append(math.log(times[0][-1] / times[1][-1]))
        pairs, elapsed = len(log_ratios), source.wall() - start
        if progress is not None:
            progress(pairs, elapsed)
        # The mean time of a pair does not tell the arms apart, so ending on it favours neither.
        ended = pairs >= max_pairs or elapsed * (1 + 1 / pairs) > budget
        if ended or (pending and pairs == pending[0]):
            pending = pending[1:]
            low, high = signed_rank_interval(np.array(log_ratios), plan.share)
            if low > margin or high < -margin:
                stopped = "decided"
                break
            if -margin <= low and high <= margin:
                stopped = "equivalent"
                break
        if ended:
            stopped = "max_pairs" if pairs >= max_pairs else "budget"
            break

    verdict: Verdict = "faster" if low > margin else "slower" if high < -margin else "no evidence"
    return PairedResult(
        verdict=verdict,
        ratio=math.exp(hodges_lehmann(np.array(log_ratios))),
        low=math.exp(low),
        high=math.exp(high),
        confidence=1 - alpha,
        min_effect=min_effect,
        pairs=len(log_ratios),
        baseline_seconds=float(np.median(times[0])),
        candidate_seconds=float(np.median(times[1])),
        clock=source.name,
        elapsed=source.wall() - began,
        stopped=stopped,
        log_ratios=tuple(log_ratios),
    )


@dataclass(frozen=True)
class _Block:
    """How one arm is timed: untimed calls, timed calls, and the wall seconds expected of both together."""

    arm: TimedArm
    warm_up: int
    repeats: int
    seconds: float

    def time(self, clock: Clock) -> float:
        """Seconds of one call, averaged over a block."""
        seconds = self.arm.time_block(self.repeats, clock, warm_up=self.warm_up)
        if seconds <= 0:
            raise MeasurementError(
                f"{self.arm.name}: the clock {clock.name} did not advance during {self.repeats} calls",
                fix='use clock="wall", or a longer min_block',
            )
        return seconds / self.repeats


def _plan_blocks(
    arms: tuple[TimedArm, TimedArm], clock: Clock, *, min_block: float, budget: float
) -> tuple[_Block, _Block]:
    """Warm both arms up, and choose how many calls make a block of each."""
    calls = [_call_seconds(arm, clock, min_block=min_block, budget=budget) for arm in arms]
    repeats = [max(1, math.ceil(min_block / call)) for call in calls]
    if max(calls) < _COMMON_REPEATS_WITHIN * min(calls):
        repeats = [max(repeats)] * 2
    # An untimed call refills the caches that the other arm has used; a call as long as a block does so by itself.
    warm_up = int(max(repeats) > 1 or any(arm.needs_warm_up for arm in arms))
    first, second = (
        _Block(arm, warm_up, count, (warm_up + count) * call)
        for arm, count, call in zip(arms, repeats, calls, strict=True)
    )
    return first, second


def _call_seconds(arm: TimedArm, clock: Clock, *, min_block: float, budget: float) -> float:
    """Warm an arm up and return the least wall seconds that a call took."""
    repeats, spent, best = 1, 0.0, math.inf
    for _ in range(_WARM_UP_BLOCKS):
        start = clock.wall()
        arm.time_block(repeats, clock)
        seconds = max(clock.wall() - start, 1e-9)
        best = min(best, seconds / repeats)
        spent += seconds
        # A slow call must leave the budget to the pairs.
        if spent > budget / 40:
            break
        repeats = max(1, min(100 * repeats, math.ceil(min_block / best)))
    return best
