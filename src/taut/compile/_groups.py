"""Neighbouring steps of a worker that it may run as one task, since nobody waits between them."""

from __future__ import annotations

from collections.abc import Sequence, Set

_LONGEST = 4
"""Steps of a group: what another worker takes over where the owner does not come should not be too large."""


def grouped(queues: Sequence[Sequence[int]], needed: Sequence[Set[int]]) -> list[list[tuple[int, ...]]]:
    """Split each worker's steps into groups whose start and end are all that other workers have to know.

    Another worker waits for no step in a group but the last, and every step of a group waits for other workers only
    as the first one does, or as an earlier group did: running a group as a whole makes nobody wait longer.

    Args:
        queues: for each worker its steps in order.
        needed: for each step those that must be done before.

    Returns:
        For each worker its groups in order.
    """
    worker_of = {step: worker for worker, queue in enumerate(queues) for step in queue}
    foreign = [
        {other for other in earlier if worker_of.get(other) not in (None, worker_of.get(step))}
        for step, earlier in enumerate(needed)
    ]
    awaited = {other for others in foreign for other in others}
    made: list[list[tuple[int, ...]]] = []
    for queue in queues:
        groups: list[tuple[int, ...]] = []
        known: set[int] = set()
        for step in queue:
            last = groups[-1] if groups else ()
            # What stands behind a step that needs it stays apart, to be refused as such.
            follows = all(step not in needed[other] for other in last)
            if last and len(last) < _LONGEST and foreign[step] <= known and last[-1] not in awaited and follows:
                groups[-1] += (step,)
            else:
                groups.append((step,))
            known |= foreign[step]
        made.append(groups)
    return made
