"""A host on which time is drawn, not spent: makes the statistics of the comparison testable without a clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from taut.stats import Clock

Noise = Iterator[float]


def independent(rng: np.random.Generator, spread: float = 0.05) -> Noise:
    """Each block disturbed by itself."""
    while True:
        yield float(np.exp(rng.normal(0, spread)))


def wandering(rng: np.random.Generator, spread: float = 0.1, memory: float = 0.95) -> Noise:
    """A slowly wandering clock frequency: an autoregressive process of order 1."""
    level = 0.0
    while True:
        level = memory * level + rng.normal(0, spread * (1 - memory**2) ** 0.5)
        yield float(np.exp(level + rng.normal(0, 0.01)))


def bursts(rng: np.random.Generator, share: float = 0.2, length: float = 4.0, factor: float = 3.0) -> Noise:
    """Another process that comes and goes: one-sided, lasting several blocks."""
    disturbed = False
    while True:
        leave, enter = 1 / length, share / (length * (1 - share))
        disturbed = rng.random() > leave if disturbed else rng.random() < enter
        yield float((1 + disturbed * (factor - 1) * rng.random()) * np.exp(rng.normal(0, 0.01)))


def throttling(rng: np.random.Generator, after: int = 30, drift: float = 0.01) -> Noise:
    """A host that heats up steadily and drops to half its clock at one point."""
    block = 0
    while True:
        yield float((1 + drift * block) * (2 if block > after else 1) * np.exp(rng.normal(0, 0.02)))
        block += 1


NOISES = {"independent": independent, "wandering": wandering, "bursts": bursts, "throttling": throttling}


@dataclass
class SimulatedHost:
    """A clock that only the arms move; `noise` multiplies the time of each block."""

    noise: Noise
    now: float = 0.0
    blocks: list[str] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        return Clock("simulated", read=lambda: self.now, wall=lambda: self.now)

    def arm(self, seconds: float, name: str = "arm") -> SimulatedArm:
        return SimulatedArm(self, seconds, name)


@dataclass
class SimulatedArm:
    """An arm whose calls take `seconds` on the undisturbed host."""

    host: SimulatedHost
    seconds: float
    name: str
    needs_warm_up: bool = False

    def time_block(self, repeats: int, clock: Clock, *, warm_up: int = 0) -> float:
        assert clock.name == "simulated"
        factor = next(self.host.noise)
        self.host.now += warm_up * self.seconds * factor
        total = repeats * self.seconds * factor
        self.host.now += total
        self.host.blocks.append(self.name)
        return total
