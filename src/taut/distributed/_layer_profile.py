"""Profiles of a device by layers, as text: the compute side of a job on hardware that one does not own.

The files are those of DeepPool ("Efficient strong scaling through burst parallel training", MLSys 2022): a line for
each layer with its settings, batch and input, and then its times; a block for each batch, with its sum at the end.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from taut.distributed._layer_shapes import parameter_shapes
from taut.distributed._workload import Workload
from taut.errors import ArgumentError, ArtefactError, TruncatedError

_MOST_BYTES = 16 * 2**20
_LAYER = re.compile(r"(\w+)(\{.*\})\[(\d{1,9})\](?:\[[\d,]+\]|\d+)((?:\s+\S+)+)", re.ASCII)
_SUM = re.compile(r"(?:sum:|SUM\(avg\))\s+(\S+)(?:\s.*)?", re.ASCII)
_TIME = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_LEAST_ERROR, _ERROR = 0.05, 0.02  # milliseconds, and share, by which rounded figures may disagree
_BACKWARD_SHARE = 2 / 3  # of a layer's time where the file has the total only: two products backward, one forward
_TOTAL_COLUMNS = (1, 4)  # the time, or its mean and quantiles, in milliseconds
_SPLIT_COLUMNS = 3  # milliseconds, and microseconds of the forward and of the backward pass


@dataclass(frozen=True, slots=True)
class ProfiledLayer:
    """A layer of a profile.

    Attributes:
        kind: as the file names it, e.g. conv2d.
        shapes: of its parameters.
        forward: seconds.
        backward: seconds.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    forward: float
    backward: float


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """A network on a device at one batch.

    Attributes:
        name: of the file.
        batch: samples.
        layers: in the order of the forward pass.
        split: the file says which share of the time is the backward pass; else two thirds of each layer are taken.
    """

    name: str
    batch: int
    layers: tuple[ProfiledLayer, ...]
    split: bool

    def workload(self) -> Workload:
        """A training step on this device, without the optimiser; layers run backward one after the other.

        Raises:
            ArgumentError: no layer has parameters, or the backward pass takes no time.
        """
        shapes, ready, done = [], [], 0.0
        for layer in reversed(self.layers):
            done += layer.backward
            for shape in reversed(layer.shapes):
                shapes.append(torch.Size(shape))
                ready.append(done)
        if not shapes or not done > 0:
            found = f"{len(shapes)} parameters and {done:g} s of backward pass"
            raise ArgumentError(self.name, found, expected="some of both")
        forward = sum(layer.forward for layer in self.layers)
        return Workload(f"{self.name}, batch {self.batch}", tuple(shapes), tuple(ready), done, forward)


def read_layer_profiles(path: Path) -> list[LayerProfile]:
    """Read a file of profiles.

    Returns:
        A profile for each block, in the order of the file.

    Raises:
        ArtefactError: the file cannot be read, or a line of it; the message says which.
        TruncatedError: it ends, or a block does, without the sum of the block.
    """
    found: list[LayerProfile] = []
    layers: list[ProfiledLayer] = []
    batch, columns = 0, 0
    for number, line in enumerate(_lines(path), start=1):
        place = f"{path}, line {number}"
        if not line or line.startswith("#"):
            continue
        total = _SUM.fullmatch(line)
        if total is not None:
            milliseconds = _time(total[1], place)
            if not layers and not milliseconds:
                continue  # a run that profiled nothing
            _check_sum(layers, milliseconds, place)
            found.append(LayerProfile(path.stem, batch, tuple(layers), columns == _SPLIT_COLUMNS))
            layers = []
            continue
        match = _LAYER.fullmatch(line)
        if match is None:
            raise ArtefactError(
                f"{place}: neither a layer nor a sum: {line[:80]!r}",
                expected='a line like conv2d{"in_channels":3, ...}[64][3,224,224] 2.157 2157 6',
            )
        if layers and (batch, columns) != (int(match[3]), len(match[4].split())):
            raise TruncatedError(f"{place}: the block of batch {batch} ends without its sum")
        batch, columns = int(match[3]), len(match[4].split())
        layers.append(_layer(match, place))
    if layers or not found:
        raise TruncatedError(f"{path}: it ends without the sum of a block", fix="copy the file again")
    return found


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ArtefactError(f"{path}: too large for a profile", expected=f"at most {_MOST_BYTES} bytes")
        return [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror})", expected="a profile of layers") from error
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{path}: not text", expected="a profile of layers") from error


def _layer(match: re.Match[str], place: str) -> ProfiledLayer:
    kind, settings, batch, times = match.groups()
    try:
        known = json.loads(settings)
        shapes = parameter_shapes(kind, known)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{place}: {error}") from error
    if int(batch) < 1:
        raise ArtefactError(f"{place}: a batch of {batch}", expected="1 or more")
    total, *others = (_time(one, place) for one in times.split())
    if len(others) + 1 == _SPLIT_COLUMNS:
        forward, backward = (one * 1e-3 for one in others)
        if abs(total - forward - backward) > _LEAST_ERROR + _ERROR * total:
            raise ArtefactError(
                f"{place}: {total:g} ms in all, {forward:g} forward and {backward:g} backward",
                expected="milliseconds in all, then microseconds of the forward and of the backward pass",
            )
    elif len(others) + 1 in _TOTAL_COLUMNS:
        forward, backward = (1 - _BACKWARD_SHARE) * total, _BACKWARD_SHARE * total
    else:
        raise ArtefactError(f"{place}: {len(others) + 1} figures", expected="1, 3 or 4")
    return ProfiledLayer(kind, shapes, forward * 1e-3, backward * 1e-3)


def _time(text: str, place: str) -> float:
    if _TIME.fullmatch(text) is None:
        raise ArtefactError(f"{place}: no time: {text[:40]!r}", expected="a number of at least 0")
    return float(text)


def _check_sum(layers: list[ProfiledLayer], total: float, place: str) -> None:
    added = 1e3 * sum(layer.forward + layer.backward for layer in layers)
    if not layers or abs(added - total) > _LEAST_ERROR + _ERROR * total:
        raise TruncatedError(
            f"{place}: a sum of {total:g} ms under {len(layers)} layers that take {added:g} ms",
            fix="copy the file again: lines are missing",
        )
