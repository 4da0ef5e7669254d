"""What steps cost in the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taut.codegen import Built, Recipe, build
from taut.compile._block import KernelStep
from taut.compile._generate import library_of
from taut.compile._program import Lowered
from taut.compile._split import can_split, split_step
from taut.runtime import Session, load


def build_parts(lowered: Lowered, parts: int) -> Built:
    """The kernels of the program, and those of each of its steps in so many parts."""
    recipes = lowered.recipes()
    for block in lowered.blocks:
        for step in block.steps:
            if can_split(step, parts):
                recipes |= {
                    piece.kernel.key: piece.kernel
                    for piece in split_step(step, parts)
                    if isinstance(piece, KernelStep) and isinstance(piece.kernel, Recipe)
                }
    return build(list(recipes.values()))


def session_of(lowered: Lowered, built: Built, workers: int | None = None) -> Session:
    """A session of the program with kernels that were built before."""
    return load(lowered.program, library_of(lowered.program, built)).session(workers=workers)


def step_seconds(lowered: Lowered, session: Session, inputs: Sequence[Any], repeats: int = 30) -> list[float]:
    """What each step of function 0 takes, the least of several calls; 0 for steps that are no instruction."""
    step_at = {pc: step for step, pc in enumerate(lowered.instructions[0])}
    times: list[list[float]] = [[] for _ in step_at]
    for _ in range(repeats):
        for entry in session.profile(*inputs):
            if entry.function == 0 and entry.instruction in step_at:
                times[step_at[entry.instruction]].append(entry.nanoseconds * 1e-9)
    return [min(own, default=0.0) for own in times]
