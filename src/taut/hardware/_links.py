"""What collective operations over a link cost: latency, bandwidth and software, fitted for each collective.

The alpha-beta model of collective communication (Thakur, Rabenseifner and Gropp, Optimization of Collective
Communication Operations in MPICH, 2005) with a software cost beside the link's: on slow links bytes decide, on fast
ones what the library does with each byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taut.errors import ArgumentError, MeasurementError
from taut.hardware._fit import DRAWS, fit_times

_COEFFICIENTS = 4
_LEAST_JUDGED = 2**16
_LEAST_TELLING = 2**20
GOODPUT = 1448 / 1514
"""Of TCP over Ethernet: what is left of a full packet without its headers."""


@dataclass(frozen=True, slots=True)
class CollectiveForm:
    """How often and how much each rank sends in a collective, per rank count p.

    Attributes:
        rounds: "2(p-1)" or "p-1", messages one after the other.
        share: bytes sent for each byte of the buffer: "2(p-1)/p", "p-1" or "(p-1)/p".
    """

    rounds: str
    share: str

    def counts(self, ranks: int) -> tuple[float, float]:
        """Rounds, and bytes sent for each byte of the buffer."""
        peers = ranks - 1
        rounds = {"2(p-1)": 2 * peers, "p-1": peers}[self.rounds]
        share = {"2(p-1)/p": 2 * peers / ranks, "p-1": peers, "(p-1)/p": peers / ranks}[self.share]
        return rounds, share


FORMS: Mapping[str, CollectiveForm] = {
    "all_reduce": CollectiveForm("2(p-1)", "2(p-1)/p"),  # a ring
    "all_gather": CollectiveForm("p-1", "p-1"),  # direct, or a ring
    "all_to_all": CollectiveForm("p-1", "(p-1)/p"),
}


@dataclass(frozen=True, slots=True)
class CollectiveTiming:
    """One measured collective.

    Attributes:
        collective: a key of `FORMS`.
        size: bytes of the buffer that each rank gives.
        ranks: of the group.
        bandwidth: of each rank's link in bytes per second; None where no link binds (loopback).
        seconds: taken.
        crowding: ranks that share a core, 1 or more.
    """

    collective: str
    size: float
    ranks: int
    bandwidth: float | None
    seconds: float
    crowding: float = 1.0


@dataclass(frozen=True)
class LinkModel:
    """Fitted costs of collectives.

    A collective of `n` bytes takes

        fixed + latency * rounds + (software * crowding + per_link / bandwidth) * n * share,

    rounds and share by its form.

    Attributes:
        coefficients: for each collective the array (1 + draws, 4) of fixed seconds, seconds a round, seconds of
            software a byte sent, and link bytes for each byte sent (headers); the first row is the estimate, the
            others are bootstrap draws.
        scatter: for each collective the factors (1 + draws,) that a single prediction may be off by, drawn from the
            residuals of the fit; the first is 1.
    """

    coefficients: Mapping[str, np.ndarray]
    scatter: Mapping[str, np.ndarray]

    def seconds(
        self, collective: str, size: float, ranks: int, bandwidth: float | None, *, crowding: float = 1.0
    ) -> np.ndarray:
        """Seconds of a collective, (1 + draws,): the estimate, then draws of what it may be.

        Raises:
            ArgumentError: the collective was not measured, or a figure is out of range.
        """
        sizes = np.array([max(size, 0.0)])
        return self.series_seconds(collective, np.sign(sizes), sizes, ranks, bandwidth, crowding=crowding)[:, 0]

    def series_seconds(
        self,
        collective: str,
        messages: np.ndarray,
        sizes: np.ndarray,
        ranks: int,
        bandwidth: float | None,
        *,
        crowding: float = 1.0,
    ) -> np.ndarray:
        """Seconds of series of one collective, (1 + draws, series), of messages one after the other.

        Args:
            collective: a key of `FORMS`.
            messages: (series,) how many there are in each series.
            sizes: (series,) bytes of the buffers of each series in all.
            ranks: of the group.
            bandwidth: of each rank's link in bytes per second; None where no link binds.
            crowding: ranks that share a core, 1 or more.

        Raises:
            ArgumentError: the collective was not measured, or a figure is out of range.
        """
        found = self.coefficients.get(collective)
        if found is None:
            raise ArgumentError("collective", collective, expected=f"one of {', '.join(self.coefficients)}")
        if ranks < 1:
            raise ArgumentError("ranks", ranks, expected="1 or more")
        if bandwidth is not None and not bandwidth > 0:
            raise ArgumentError("bandwidth", bandwidth, expected="bytes per second above 0, or None")
        if ranks == 1:
            return np.zeros((len(found), len(sizes)))
        rows = _rows(collective, messages, sizes, ranks, bandwidth, crowding)
        return found @ rows * self.scatter[collective][:, None]

    def software(self, collective: str, size: float, ranks: int) -> np.ndarray:
        """Seconds of processor time in it, (1 + draws,), which other work of the rank has to wait for on one core."""
        _, share = FORMS[collective].counts(ranks)
        return self.coefficients[collective][:, 2] * size * share

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            name: {"coefficients": array.tolist(), "scatter": self.scatter[name].tolist()}
            for name, array in self.coefficients.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LinkModel:
        """What `to_dict` described.

        Raises:
            ArgumentError: a figure is missing or out of range.
        """
        coefficients, scatter = {}, {}
        for name, one in data.items():
            if name not in FORMS:
                raise ArgumentError("collective", name, expected=f"one of {', '.join(FORMS)}")
            try:
                rows = np.asarray(one["coefficients"], dtype=np.float64)
                factors = np.asarray(one["scatter"], dtype=np.float64)
            except (KeyError, TypeError, ValueError) as error:
                raise ArgumentError(name, one, expected="the lists coefficients and scatter") from error
            fitting = rows.ndim == 2 and rows.shape[1] == _COEFFICIENTS and factors.shape == rows.shape[:1]
            if not fitting or not len(rows) or not np.isfinite(rows).all() or not np.isfinite(factors).all():
                raise ArgumentError(
                    name, str(rows.shape), expected="finite rows of four coefficients and a factor each"
                )
            if (rows < 0).any() or (factors <= 0).any():
                raise ArgumentError(name, float(rows.min()), expected="coefficients of at least 0, factors above 0")
            coefficients[name], scatter[name] = rows, factors
        return cls(coefficients, scatter)


def ring_all_reduce(size: float, ranks: int, bandwidth: float, latency: float = 0.0) -> float:
    """Seconds of a ring all-reduce by its formula: the lower bound that no measurement goes below."""
    return 2 * latency * (ranks - 1) + 2 * size * (ranks - 1) / (ranks * bandwidth)


def fit_links(timings: Sequence[CollectiveTiming], *, draws: int = DRAWS, seed: int = 0) -> LinkModel:
    """Fit the costs of each collective, in relative error, with coefficients of at least 0.

    Draws come from resampling the timings with replacement; each set-up (size, ranks, bandwidth) keeps its number.

    Args:
        timings: measured, at least two sizes of each collective.
        draws: bootstrap fits.
        seed: of the resampling.

    Raises:
        MeasurementError: too few set-ups, or a time that is not positive.
    """
    coefficients, scatter = {}, {}
    for collective in FORMS:
        own = [timing for timing in timings if timing.collective == collective]
        if not own:
            continue
        if len({timing.size for timing in own}) < 2:
            raise MeasurementError(f"{collective}: timings of one size only", expected="two sizes or more")
        rows = np.array([_rows(collective, 1.0, one.size, one.ranks, one.bandwidth, one.crowding) for one in own])
        # Gradients travel in large messages, over links where there are any.
        linked = any(one.bandwidth is not None for one in own)
        largest = max(one.size for one in own)
        judged = [one.size >= min(_LEAST_JUDGED, largest) and (one.bandwidth is not None) >= linked for one in own]
        seconds = np.array([timing.seconds for timing in own])
        fit = fit_times(rows, seconds, judged=np.array(judged), draws=draws, seed=seed)
        found = fit.coefficients
        if not rows[:, 3].any():
            found[:, 3] = 1 / GOODPUT  # no link was measured: what the headers of full packets take
        coefficients[collective], scatter[collective] = found, fit.scatter
    return LinkModel(coefficients, scatter)


def measured_bandwidth(timings: Sequence[CollectiveTiming], loopback: LinkModel) -> float:
    """Bytes per second of the links on which collectives were timed, from those that loopback cannot explain.

    Args:
        timings: over the link, whatever their `bandwidth` says.
        loopback: fitted without a link.

    Raises:
        MeasurementError: the link costs nothing that can be told from noise.
    """
    largest: dict[str, float] = {}
    for one in timings:
        largest[one.collective] = max(one.size, largest.get(one.collective, 0.0))
    # Large messages tell most; on slow links they are left out, and smaller ones tell as much.
    telling = [one for one in timings if one.size >= min(_LEAST_TELLING, largest[one.collective])]
    per_byte = []
    for one in telling:
        known = float(loopback.seconds(one.collective, one.size, one.ranks, None, crowding=one.crowding)[0])
        _, share = FORMS[one.collective].counts(one.ranks)
        if one.seconds > known:
            per_byte.append((one.seconds - known) / (one.size * share))
    if not per_byte or 2 * len(per_byte) < len(telling):
        raise MeasurementError("the link is as fast as loopback", fix="give its bandwidth, e.g. --link 100Gbit")
    return float(1 / (np.median(per_byte) * GOODPUT))


def _rows(
    collective: str,
    messages: float | np.ndarray,
    size: float | np.ndarray,
    ranks: int,
    bandwidth: float | None,
    crowding: float,
) -> np.ndarray:
    """What the coefficients are multiplied by: (4,) of one collective, (4, series) of several series of them."""
    rounds, share = FORMS[collective].counts(ranks)
    sent = size * share
    # The processor is shared by the ranks of a core, the fixed part and the rounds as well.
    latency = crowding * messages
    return np.array([latency, latency * rounds, crowding * sent, sent / (math.inf if bandwidth is None else bandwidth)])
