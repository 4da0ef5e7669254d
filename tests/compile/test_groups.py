"""Which neighbours of a queue become one task: nobody may wait longer than for the steps one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taut.compile._groups import grouped


def ends(tasks: list[list[tuple[int, ...]]], needed: list[set[int]], durations: list[int]) -> list[int]:
    """When each step ends if a task starts once all that its steps need is published, which is at the end of a task."""
    published: dict[int, int] = {}
    found = [0] * len(needed)
    free, position = [0] * len(tasks), [0] * len(tasks)
    while any(position[worker] < len(queue) for worker, queue in enumerate(tasks)):
        before = sum(position)
        for worker, queue in enumerate(tasks):
            while position[worker] < len(queue):
                steps = queue[position[worker]]
                outside = {other for step in steps for other in needed[step]} - set(steps)
                if not outside <= published.keys():
                    break
                time = max([free[worker], *(published[other] for other in outside)])
                for step in steps:
                    time += durations[step]
                    found[step] = time
                published |= dict.fromkeys(steps, time)
                free[worker] = time
                position[worker] += 1
        assert sum(position) > before, "tasks wait for each other"
    return found


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[list[int]], list[set[int]], list[int]]:
    """Steps in an order that dependences allow, on up to three workers, with their durations."""
    count = draw(st.integers(1, 16))
    needed = [set(draw(st.lists(st.integers(0, step - 1), max_size=2))) if step else set() for step in range(count)]
    workers: list[list[int]] = [[] for _ in range(draw(st.integers(1, 3)))]
    for step in range(count):
        draw(st.sampled_from(workers)).append(step)
    return workers, needed, draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))


@given(queues())
def test_no_step_ends_later_in_a_group(drawn: tuple[list[list[int]], list[set[int]], list[int]]) -> None:
    workers, needed, durations = drawn
    groups = grouped(workers, needed)
    assert [[step for group in own for step in group] for own in groups] == workers
    alone = [[(step,) for step in queue] for queue in workers]
    assert ends(groups, needed, durations) == ends(alone, needed, durations)


def test_halves_of_a_chain_meet_only_where_they_see_each_other() -> None:
    # Steps 0 to 5 on the first worker, 6 to 11 on the second; the third of each reads both halves.
    needed = [set(), {0}, {1, 7}, {2}, {3}, {4, 10}, set(), {6}, {7, 1}, {8}, {9}, {10, 4}]
    assert grouped([range(6), range(6, 12)], needed) == [[(0, 1), (2, 3, 4), (5,)], [(6, 7), (8, 9, 10), (11,)]]


def test_a_long_queue_that_nobody_waits_for_stays_in_pieces() -> None:
    assert grouped([range(9)], [set()] * 9) == [[(0, 1, 2, 3), (4, 5, 6, 7), (8,)]]
