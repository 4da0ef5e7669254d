from collections.abc import Callable, Sequence

most_operators: int
most_exact_operators: int

Edges = Sequence[tuple[int, int]]
Plan = tuple[list[tuple[float, int]], float]

def longest_chains(size: int, edges: Edges, /) -> list[list[int]]: ...
def count(
    size: int, edges: Edges, r: int, s: int, state_limit: int, transition_limit: int, /
) -> tuple[int, int, bytes]: ...
def search(
    size: int,
    edges: Edges,
    r: int,
    s: int,
    merge_classes: Sequence[int],
    strategies: Sequence[int],
    state_limit: int,
    transition_limit: int,
    costs: Callable[[int, bytes, bytes, bytes], bytes],
    /,
) -> tuple[list[tuple[list[int], list[int], int, float]], int, int, int]: ...
def list_plan(size: int, edges: Edges, workers: int, durations: Sequence[float], /) -> Plan: ...
def exact_plan(
    size: int, edges: Edges, workers: int, durations: Sequence[float], node_limit: int, /
) -> tuple[Plan, bool, int]: ...
