"""What the user asked of the job."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from taut.errors import ArgumentError
from taut.optimize._quality import Limit
from taut.stats import available_cores

Goal = Literal["latency", "size", "energy"]
Job = Literal["optimize", "quantize"]
Progress = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        goal: "latency" compares wall time, "energy" CPU time over all threads (a proxy), "size" stored bytes.
        limit: how much quality may be lost.
        budget: seconds for measuring, all together.
        only: consider these techniques alone; empty means all.
        skip: leave these out.
        peers: other tools to measure beside, never kept; "torch_compile".
        threads: thread counts to consider.
        seed: of the order within measured pairs.
        job: the command that asks.
        scoring_share: the part of the budget that scoring one candidate may take; more data is thinned out.
    """

    goal: Goal = "latency"
    limit: Limit = dataclasses.field(default_factory=lambda: Limit(0.01, relative=True))
    budget: float = 120.0
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    seed: int = 0
    job: Job = "optimize"
    scoring_share: float = 0.06

    def __post_init__(self) -> None:
        if self.goal not in get_args(Goal):
            raise ArgumentError("--goal", self.goal, expected=" | ".join(get_args(Goal)))
        if not 1 <= self.budget <= 86_400:
            raise ArgumentError("--budget", self.budget, expected="seconds between 1 and 86400")
        both = sorted(set(self.only) & set(self.skip))
        if both:
            raise ArgumentError("--skip", both, expected="techniques that --only does not name")
        if any(count < 1 for count in self.threads):
            raise ArgumentError("threads", self.threads, expected="thread counts of 1 or more")
        if not self.threads:
            object.__setattr__(self, "threads", thread_choices())

    def check_names(self, techniques: Sequence[str], peers: Sequence[str]) -> None:
        """Refuse names that nobody knows.

        Raises:
            ArgumentError: naming the option and the choices.
        """
        for option, given, known in (
            ("--only", self.only, techniques),
            ("--skip", self.skip, techniques),
            ("--peer", self.peers, peers),
        ):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ArgumentError(option, ", ".join(unknown), expected=f"some of {', '.join(known)}")

    def wants(self, technique: str) -> bool:
        """True if the user did not exclude the technique."""
        return technique not in self.skip and (not self.only or technique in self.only)


def thread_choices() -> tuple[int, ...]:
    """Powers of two up to the cores that this process may use, and that number itself."""
    cores = available_cores()
    return tuple(sorted({cores} | {2**power for power in range(cores.bit_length()) if 2**power <= cores}))
