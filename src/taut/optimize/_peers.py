"""Other tools, measured beside and never kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from taut.optimize._planner import Trial

if TYPE_CHECKING:
    from taut.optimize._search import Search

_SHARE = 0.2
"""The part of the budget that a peer may take beyond it."""


def measure_peer(search: Search, name: str) -> Trial:
    """Score and time `torch_compile` of the original module against the best eager setting."""
    search.say(f"measuring the peer {name}")
    trial = Trial(name, "torch.compile of the original module", status="peer")
    threads = search.eager_threads
    try:
        compiled = torch.compile(search.eager, dynamic=bool(search.base.symbols))
        torch.set_num_threads(threads)
        trial.quality = search.judge.judge(compiled, what=name)
        trial.comparison = search.compare(
            search.workload.arm(search.eager, threads, "best eager"),
            search.workload.arm(compiled, threads, name),
            until=search.spent / search.settings.budget + _SHARE,
        )
        trial.reason = f"peer, never kept: {trial.comparison.summary()}"
    except Exception as error:  # the peer's own failures are a finding, not an error of the job
        trial.reason = f"peer failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return trial
