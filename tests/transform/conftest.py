"""Captured models, once for all tests of the room."""

from collections.abc import Iterator

import pytest
import torch
from small_models import Encoder, Mobile, Residual, settled
from torch.export import Dim

from taut.graph import Graph, capture


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are too small to share; a busy host makes threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def residual() -> Graph:
    torch.manual_seed(0)
    batch = Dim("N", min=2, max=64)
    return capture(settled(Residual()), (torch.randn(4, 3, 16, 16),), dynamic_shapes=({0: batch},))


@pytest.fixture(scope="session")
def mobile() -> Graph:
    torch.manual_seed(0)
    return capture(settled(Mobile()), (torch.randn(2, 8, 6, 6),))


@pytest.fixture(scope="session")
def encoder() -> Graph:
    torch.manual_seed(0)
    sizes = {0: Dim("N", min=2, max=64), 1: Dim("T", min=2, max=64)}
    example = (torch.ones(3, 9, dtype=torch.int64), torch.ones(3, 9, dtype=torch.int64))
    return capture(Encoder().eval(), example, dynamic_shapes=(sizes, sizes))
