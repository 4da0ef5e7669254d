"""The pass that quantises a whole graph by one scheme, with exceptions by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from taut.errors import ArgumentError
from taut.graph import Graph
from taut.numerics import Scheme, get_scheme
from taut.transform._base import GraphPass, Match
from taut.transform.quantisation._emit import Placement, place
from taut.transform.quantisation._kernels import kernel_for
from taut.transform.quantisation._layers import QuantisableLayer
from taut.transform.quantisation._options import check_path, check_skip, check_strings, check_width
from taut.transform.quantisation._units import Unit, find_units, quantisable_units

LEAVE = "float32"
"""The scheme of a layer that stays as it is."""


class Quantise(GraphPass):
    """Linear layers, convolutions and embeddings in the number formats of a scheme.

    A layer runs on the integer kernel of its scheme where there is one. Otherwise it is emulated: the weight is stored
    encoded and decoded when the graph is loaded, activations take the values of their format, and the arithmetic is
    float32; the size is real, the speed is not. Tables are decoded row by row as they are looked up.

    Options: `scheme`, the name of a scheme or of a weight format; `layers`, exceptions as "path=scheme", each for a
    module path and all below it, the longest path first, where "float32" leaves a layer as it is; `skip`, module paths
    whose layers stay; `minimum_features`, below which (inputs, outputs, channels or rows) a layer stays.
    """

    name = "quantise"
    title = "layers quantised by scheme"
    changes_numerics = True
    after = ("fold_batch_norm", "fold_linear_chain", "merge_parallel_linear", "channels_last")
    conflicts = (
        *("int8_linear", "w4a8_linear", "w4a4_linear"),
        *("int8_convolution", "w4a8_convolution", "quantised_embedding"),
    )
    defaults: ClassVar[Mapping[str, object]] = {
        "scheme": "vsq-w4a8-v16",
        "layers": (),
        "skip": (),
        "minimum_features": 16,
    }
    reason = "no linear layer, 2-d convolution or table with a constant float32 weight is wide enough and not skipped"

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """Each layer, and each table, with its scheme."""
        return [match for placement in placements(graph, options) for match in placement.matches()]

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """New nodes stand where the last node of each match stood."""
        return place(graph, matches)

    def remark(self, graph: Graph, options: Mapping[str, object]) -> str:
        """Which layers stay although they are wide enough, and why."""
        skip = check_strings("quantise.skip", options["skip"])
        return "; ".join(
            f"{unit.path} stays, as {unit.obstacle}"
            for unit in find_units(graph)
            if unit.obstacle and not unit.is_below(skip)
        )


def quantisable_paths(graph: Graph, *, skip: Sequence[str], minimum_features: int) -> tuple[str, ...]:
    """Paths of the layers and tables that `quantise` would change."""
    return tuple(unit.path for unit in quantisable_units(graph, skip=skip, minimum_features=minimum_features))


def quantised_layers(graph: Graph, options: Mapping[str, object]) -> list[Placement]:
    """The linear layers and convolutions that `quantise` would change with these options."""
    return [place for place in placements(graph, options) if isinstance(place.found, QuantisableLayer)]


def placements(graph: Graph, options: Mapping[str, object]) -> list[Placement]:
    """What `quantise` would put where with these options."""
    default = options["scheme"]
    assert isinstance(default, str)
    least = check_width("quantise.minimum_features", options["minimum_features"])
    skip = check_skip("quantise.skip", options["skip"], graph)
    exceptions = _exceptions(check_strings("quantise.layers", options["layers"]))
    units = find_units(graph)
    for root in exceptions:
        check_path("quantise.layers", root, units)
    found: list[Placement] = []
    fallback = _scheme("quantise.scheme", default)
    for unit in units:
        root = _longest(unit, exceptions)
        scheme = fallback if root is None else exceptions[root]
        if unit.is_below(skip) or scheme is None:
            continue
        if unit.obstacle and root is not None and root in unit.paths:
            raise ArgumentError(
                "quantise.layers", root, expected=f"a layer that can be quantised; {unit.path}: {unit.obstacle}"
            )
        if unit.obstacle or (unit.features < least and (root is None or root not in unit.paths)):
            continue
        found += _of_unit(unit, scheme)
    return found


def _of_unit(unit: Unit, scheme: Scheme) -> list[Placement]:
    weights, activations = scheme.weights, scheme.activations
    made = [Placement(layer, weights, activations, kernel_for(layer, weights, activations)) for layer in unit.layers]
    return made if unit.table is None else [*made, Placement(unit.table, weights)]


def _exceptions(layers: Sequence[str]) -> dict[str, Scheme | None]:
    made: dict[str, Scheme | None] = {}
    for item in layers:
        path, _, name = item.rpartition("=")
        if not path or not name:
            raise ArgumentError("quantise.layers", item, expected="PATH=SCHEME, e.g. layers.0=int8-channel")
        if path in made:
            raise ArgumentError("quantise.layers", item, expected="each path once")
        made[path] = _scheme("quantise.layers", name)
    return made


def _scheme(option: str, name: str) -> Scheme | None:
    """The scheme of that name; None where the layer stays."""
    return None if name == LEAVE else get_scheme(name)


def _longest(unit: Unit, exceptions: Mapping[str, Scheme | None]) -> str | None:
    """The longest of the paths that the unit is at or below."""
    roots = [root for root in exceptions if root == unit.path or unit.is_below([root])]
    return max(roots, key=len, default=None)
