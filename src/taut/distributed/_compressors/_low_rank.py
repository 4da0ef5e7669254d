"""What compressors by low-rank factors have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Gradient, Memory
from taut.distributed._memory import generator, is_zero, residual_of, working_dtype

LEFT = "left factor"
RIGHT = "right factor"


def factors_of(shape: torch.Size, rank: int) -> tuple[int, int, int]:
    """Rows and columns of a parameter as a matrix, and the rank of its factors; three zeros if it is sent whole."""
    if len(shape) < 2 or not shape.numel():
        return 0, 0, 0
    rows, columns = shape[0], math.prod(shape[1:])
    rank = min(rank, rows, columns)
    return (rows, columns, rank) if rank * (rows + columns) < rows * columns else (0, 0, 0)


def split(gradients: Sequence[Gradient], rank: int) -> tuple[list[Gradient], list[Gradient]]:
    """The gradients that are sent as factors, and those that are sent whole."""
    matrices: list[Gradient] = []
    whole: list[Gradient] = []
    for gradient in gradients:
        (matrices if factors_of(gradient.tensor.shape, rank)[2] else whole).append(gradient)
    return matrices, whole


def contribution(gradient: Gradient, memory: Memory) -> torch.Tensor:
    """What a rank has to give of a matrix, (rows, columns): its residual, to which the gradient is added, or zeros."""
    flat = gradient.tensor.view(-1)
    residual = residual_of(gradient, memory)
    given = torch.zeros_like(residual) if is_zero(flat) else residual.add_(flat)
    return given.view(gradient.tensor.shape[0], -1)


def project(matrix: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """`matrix @ columns` for few columns, (rows, rank)."""
    # Written so, libraries take up to 17 times as long as for the transposed product of contiguous rows.
    return (columns.T.contiguous() @ matrix.T).T


def mean_of(tensors: Sequence[torch.Tensor], communicator: Communicator) -> list[torch.Tensor]:
    """Their means over ranks, in one all-reduce."""
    if not tensors:
        return []
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    communicator.all_reduce(flat)
    pieces = flat.div_(communicator.size).split([tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]


def working(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in the dtype that it is computed with."""
    return tensor.to(working_dtype(tensor.dtype))


def orthonormal(columns: torch.Tensor) -> torch.Tensor:
    """Orthonormal columns that span at least those of a matrix, (rows, rank) with no more columns than rows."""
    return torch.linalg.qr(columns).Q


def settle(gradient: Gradient, sent: torch.Tensor, memory: Memory) -> None:
    """Take what was sent, (rows, columns), out of the residual, which starts anew after NaN."""
    residual = residual_of(gradient, memory).view(sent.shape)
    residual -= sent
    if not residual.sum().isfinite():
        residual.zero_()


def factor(gradient: Gradient, side: str, rows: int, rank: int, seed: int, memory: Memory) -> torch.Tensor:
    """The factor of the step before, (rows, rank): cut, or with new columns orthogonal to its own, after a change."""
    kept = memory.setdefault(gradient.name, {}).get(side)
    if kept is None or kept.shape[0] != rows or kept.dtype != working_dtype(gradient.tensor.dtype):
        kept = gradient.tensor.new_empty((rows, 0), dtype=working_dtype(gradient.tensor.dtype))
    kept = kept.to(gradient.tensor.device)  # a checkpoint may have been read on another one
    missing = rank - kept.shape[1]
    if missing > 0:
        random = generator(torch.device("cpu"), seed, gradient.name, side, kept.shape[1])
        fresh = torch.randn((rows, missing), generator=random, dtype=torch.float64).to(kept)
        kept = torch.cat([kept, orthonormal(torch.cat([kept, fresh], dim=1))[:, kept.shape[1] :]], dim=1)
    kept = kept[:, :rank].contiguous()
    memory[gradient.name][side] = kept
    return kept


def keep_factor(gradient: Gradient, side: str, found: torch.Tensor, memory: Memory) -> None:
    """Start the next step from a factor, except its columns that are zero or not finite: nothing grows from those."""
    usable = found.isfinite().all(dim=0) & found.any(dim=0)
    before = memory[gradient.name].get(side)
    if before is not None and before.shape == found.shape:
        memory[gradient.name][side] = torch.where(usable, found, before.to(found.device))
    else:
        memory[gradient.name][side] = found[:, usable]  # `factor` puts new ones for the others
