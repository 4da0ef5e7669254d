"""Non-maximum suppression against its definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taut.errors import KernelError
from taut.kernels import nms


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@given(st.integers(0, 12), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(0, 1000))
def test_each_box_stays_unless_a_better_one_that_stays_covers_it(count: int, threshold: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 8, (count, 2), generator=generator).float()
    boxes = torch.cat([corners, corners + torch.randint(1, 8, (count, 2), generator=generator)], 1)
    scores = torch.randint(0, 5, (count,), generator=generator).float()
    kept: list[int] = []
    for candidate in sorted(range(count), key=lambda i: (-float(scores[i]), i)):
        if all(not overlap(boxes[candidate].tolist(), boxes[other].tolist()) > threshold for other in kept):
            kept.append(candidate)
    assert nms(boxes, scores, threshold).tolist() == kept


def test_shapes_and_dtypes_are_checked() -> None:
    with pytest.raises(KernelError, match=r"boxes: has shape \(3, 5\)"):
        nms(torch.zeros(3, 5), torch.zeros(3), 0.5)
    with pytest.raises(KernelError, match=r"scores: .*float64"):
        nms(torch.zeros(3, 4), torch.zeros(3).double(), 0.5)


def test_torch_checks_of_operators_pass() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    torch.library.opcheck(torch.ops.taut.nms.default, (boxes, torch.tensor([0.9, 0.8, 0.1]), 0.5))
