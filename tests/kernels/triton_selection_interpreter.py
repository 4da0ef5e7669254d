"""Compares the Triton selection with that on the CPU; a script, run with TRITON_INTERPRET=1."""

import torch
from selection_reference import KINDS, gradient, same_bits

from taut.kernels import select_above, top_k, triton_select_above, triton_top_k


def compare_top_k(x: torch.Tensor, k: int) -> None:
    indices, values = triton_top_k(x, k)
    expected = top_k(x, k)
    assert torch.equal(indices, expected[0])
    assert same_bits(values, expected[1])


def compare_above(x: torch.Tensor, threshold: float, capacity: int) -> None:
    ours, theirs = x.clone(), x.clone()
    indices, values, count = triton_select_above(ours, threshold, capacity)
    expected = select_above(theirs, threshold, capacity)
    assert count == expected[2]
    assert torch.equal(indices, expected[0])
    assert same_bits(values, expected[1])
    assert same_bits(ours, theirs)


if __name__ == "__main__":
    for kind in KINDS:
        for size in (1, 1024, 3001):
            x = gradient(kind, size)
            for k in (0, 1, size // 3, size):
                compare_top_k(x, k)
            for threshold, capacity in ((0.0, size), (0.5, size), (0.5, 7), (1e300, size), (float("inf"), 0)):
                compare_above(x, threshold, capacity)
    compare_top_k(torch.empty(0), 0)
    compare_above(torch.empty(0), 1.0, 3)
