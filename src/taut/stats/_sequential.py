"""When to look at the data, and what each look may cost."""

from __future__ import annotations

from dataclasses import dataclass

from taut.stats._signed_rank import smallest_sample

_FIRST_LOOK = 12
_GROWTH = 1.5


@dataclass(frozen=True)
class LookPlan:
    """A finite number of looks that share the error probability equally.

    The looks are dependent and the dependence is unknown (it follows the noise of the host), so their shares are
    simply added up: with each look's interval at level 1 - `share`, all of them hold together with probability
    1 - alpha at least, and stopping at any of them, for any reason, keeps that promise. One share is kept for the
    last look, which comes when the budget ends.

    Attributes:
        looks: numbers of pairs at which to look before the end, ascending.
        share: error probability of one look.
    """

    looks: tuple[int, ...]
    share: float


def plan_looks(alpha: float, capacity: int, first: int = _FIRST_LOOK) -> LookPlan:
    """Plan looks at geometrically growing numbers of pairs.

    The plan may depend on how long calls take but not on which arm is faster, so it must be made before the first
    pair.

    Args:
        alpha: error probability of the whole comparison.
        capacity: number of pairs that is expected to fit into the budget.
        first: number of pairs before which not to look, 12 at least.

    Returns:
        The plan; with little capacity it is the look at the end alone, which then has all of alpha.
    """
    looks: list[int] = []
    size = max(first, _FIRST_LOOK)
    # A look shortly before the end would pay twice for the same data.
    while size * 1.25 <= capacity:
        looks.append(size)
        size = round(size * _GROWTH)
    share = alpha / (len(looks) + 1)
    fewest = smallest_sample(share)
    if any(look < fewest for look in looks):
        looks = [look for look in looks if look >= fewest]
        share = alpha / (len(looks) + 1)
    return LookPlan(tuple(looks), share)
