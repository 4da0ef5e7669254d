"""What `attach` accepts of a sharded module; how it trains is in test_attach.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from taut.distributed import NoCompression, TopK, attach
from taut.errors import ArgumentError

WIDTH = 2**15  # a square of it is half of what an int32 counts


@pytest.fixture(autouse=True)
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def layers(count: int) -> torch.nn.Sequential:
    """Without memory for their values."""
    with torch.device("meta"):
        return torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(count)))


@pytest.mark.parametrize("compressor", [TopK(0.1), NoCompression()])
def test_a_group_that_an_int32_does_not_count_is_refused_before_training(compressor: TopK | NoCompression) -> None:
    module = layers(3)
    fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ArgumentError, match="3221225472 elements in one group") as raised:
        attach(module, compressor)
    assert "apply fully_shard to the layers" in str(raised.value)


def test_groups_of_one_layer_each_are_accepted() -> None:
    module, mesh = layers(3), init_device_mesh("cpu", (1,))
    for layer in module:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    assert set(attach(module, TopK(0.1)).levels) == {"0", "1", "2"}


def test_frozen_parameters_do_not_travel() -> None:
    module = layers(3)
    module[:2].requires_grad_(False)
    fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
    assert attach(module, TopK(0.1)).levels == {"(root)": 0}
