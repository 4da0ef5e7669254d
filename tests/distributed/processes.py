"""Runs a function on ranks that are processes, over Gloo."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIME_OUT = 60.0


def run_processes(
    ranks: int, work: Callable[..., Any], folder: Path, *arguments: Any, time_out: float = TIME_OUT
) -> list[Any]:
    """Call `work(rank, *arguments)` in processes of a Gloo group; returns what each returned, None if killed."""
    context = mp.get_context("spawn")
    processes = [
        context.Process(target=_run, args=(rank, ranks, work, folder, time_out, arguments)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=600)
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
        process.join()
    assert not hung, "a rank hung"
    results = []
    for rank in range(ranks):
        path = folder / f"rank{rank}.pt"
        results.append(torch.load(path, weights_only=False) if path.exists() else None)
        path.unlink(missing_ok=True)
    (folder / "store").unlink(missing_ok=True)
    failed = [result for result in results if isinstance(result, Failure)]
    assert not failed, "\n".join(failure.text for failure in failed)
    return results


class Failure:
    """What a rank raised and did not expect."""

    def __init__(self, text: str) -> None:
        self.text = text


def _run(rank: int, ranks: int, work: Callable[..., Any], folder: Path, time_out: float, arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=time_out),
    )
    try:
        result = work(rank, *arguments)
    except BaseException:
        result = Failure(f"rank {rank}:\n{traceback.format_exc()}")
    torch.save(result, folder / f"rank{rank}.pt")
    if not isinstance(result, Failure):
        dist.destroy_process_group()
    else:
        os._exit(1)  # waits for nobody, so that the others fail at once
