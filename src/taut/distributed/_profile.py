"""What a probe has found about links, encoders and the host, as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from taut._files import write_whole
from taut.distributed._candidates import BASELINES, CANDIDATES
from taut.distributed._step_time import EncodeCost
from taut.errors import ArgumentError, ArtefactError, TruncatedError, VersionError
from taut.hardware import FORMS, LinkModel

_FORMAT = "taut communication profile"
_VERSION = 1
_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Profile:
    """What a probe has measured.

    Attributes:
        links: costs of collectives.
        costs: of encoding and decoding, by the names of `CANDIDATES`.
        slowdown: of a backward pass by concurrent communication, beyond the processor time that this needs.
        bandwidth: of the probed links in bytes per second; None if they were loopback.
        ranks: that took part.
        host: fingerprint of the host of rank 0.
        doubts: why the figures may be wrong, a sentence each; none on a quiet host.
    """

    links: LinkModel
    costs: Mapping[str, EncodeCost]
    slowdown: float
    bandwidth: float | None
    ranks: int
    host: Mapping[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        said = [f"ranks: {self.ranks}; communication slows computing down {self.slowdown:.2f}x"]
        for name, rows in self.links.coefficients.items():
            fixed, latency, software, per_link = rows[0]
            said.append(
                f"{name}: {fixed * 1e6:.0f} us + {latency * 1e6:.0f} us a round, {software * 1e9:.3g} ns of software "
                f"and {per_link:.2f} bytes on the link for each byte sent"
            )
        if self.bandwidth is not None:
            said.append(f"link: {8 * self.bandwidth / 1e9:.3g} Gbit/s")
        return [*said, *(f"doubtful: {doubt}" for doubt in self.doubts)]

    def write(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            "links": self.links.to_dict(),
            "costs": {name: cost.coefficients.tolist() for name, cost in self.costs.items()},
            "slowdown": self.slowdown,
            "bandwidth_bytes_per_second": self.bandwidth,
            "ranks": self.ranks,
            "host": dict(self.host),
            "doubts": list(self.doubts),
        }
        text = json.dumps(document, allow_nan=False) + "\n"
        write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        ArtefactError: the file is missing, no profile, or holds figures that cannot be.
        VersionError: a newer taut has written it.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ArtefactError(f"{path}: too large for a profile", expected=f"at most {_MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArtefactError(
            f"{path}: cannot be read ({error.strerror})", expected="a file that taut comm probe has written"
        ) from error
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{path}: not text", expected="a file that taut comm probe has written") from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TruncatedError(f"{path}: not JSON ({error})", fix="run taut comm probe again") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ArtefactError(f"{path}: no {_FORMAT}", expected="a file that taut comm probe has written")
    version = document.get("version")
    if isinstance(version, int) and version > _VERSION:
        raise VersionError(f"{path}: version {version}, this taut reads {_VERSION}", fix="upgrade taut")
    try:
        return _parsed(document)
    except (ArgumentError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ArtefactError(f"{path}: {reason}", fix="run taut comm probe again") from error


def _parsed(document: dict[str, Any]) -> Profile:
    links = LinkModel.from_dict(document["links"])
    draws = {len(rows) for rows in links.coefficients.values()}
    costs = {}
    for name, listed in document["costs"].items():
        if name not in CANDIDATES:  # of another version: nobody asks for it
            continue
        rows = np.asarray(listed, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != 3 or not np.isfinite(rows).all() or (rows < 0).any():
            raise ArgumentError(name, rows.shape, expected="rows of three costs of at least 0")
        costs[name] = EncodeCost(rows)
    lacking = [name for name in FORMS if name not in links.coefficients] + [
        one for one in BASELINES if one not in costs
    ]
    if lacking:
        raise ArgumentError("costs", sorted(costs), expected=f"costs of {', '.join(lacking)} as well")
    draws |= {len(cost.coefficients) for cost in costs.values()}
    if len(draws) != 1:
        raise ArgumentError("draws", sorted(draws), expected="one number of draws throughout")
    return Profile(
        links=links,
        costs=costs,
        slowdown=_number(document, "slowdown", 1.0),
        bandwidth=None
        if document["bandwidth_bytes_per_second"] is None
        else _number(document, "bandwidth_bytes_per_second", 1.0),
        ranks=int(_number(document, "ranks", 1)),
        host=dict(document["host"]),
        doubts=tuple(map(str, document.get("doubts", ()))),
    )


def _number(document: dict[str, Any], name: str, least: float) -> float:
    value = document[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise ArgumentError(name, value, expected=f"a number of at least {least:g}")
    return float(value)
