"""Passes that put every layer of a kind on one kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from taut.graph import Graph, Node
from taut.numerics import get_format
from taut.transform._base import GraphPass, Match
from taut.transform.quantisation._emit import Placement, place
from taut.transform.quantisation._kernels import kernel_for
from taut.transform.quantisation._layers import QuantisableLayer, convolution_layer, is_below, linear_layer
from taut.transform.quantisation._options import check_skip, check_width
from taut.transform.quantisation._units import quantisable_units

_FOLDS = ("fold_batch_norm", "fold_linear_chain", "merge_parallel_linear")


class _KernelPass(GraphPass):
    """Layers of one kind on the kernel for one weight format and one activation format.

    A ReLU or exact GELU that is the layer's only user is fused. The first option is a width, below which (inputs or
    outputs) a layer stays as it is; `skip` lists module paths whose layers stay, with all below them.
    """

    changes_numerics = True
    layer: ClassVar[Callable[[Graph, Node], QuantisableLayer | None]]
    weights: ClassVar[str] = "int8-channel"
    activations: ClassVar[str] = "int8-channel"

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """The layers that are wide enough and not skipped, with the activation that follows."""
        width = next(name for name in self.defaults if name.startswith("minimum_"))
        least = check_width(f"{self.name}.{width}", options[width])
        skip = check_skip(f"{self.name}.skip", options["skip"], graph)
        weights, activations = get_format(self.weights), get_format(self.activations)
        matches: list[Match] = []
        for node in graph.nodes:
            found = type(self).layer(graph, node)
            if found is None or found.features < least or is_below((node.module_path, found.path), skip):
                continue
            kernel = kernel_for(found, weights, activations)
            if kernel is not None:
                matches += Placement(found, weights, activations, kernel).matches()
        return matches

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """The kernel stands where the last node of each chain stood; its packed weight runs on any ISA."""
        return place(graph, matches)


class _LinearPass(_KernelPass):
    layer = staticmethod(linear_layer)
    after = _FOLDS
    defaults: ClassVar[Mapping[str, object]] = {"minimum_features": 64, "skip": ()}
    reason = "no linear layer with a constant float32 weight is wide enough and not skipped"


class Int8Linear(_LinearPass):
    """Linear layers run on int8 weights (a scale an output channel) and int8 activations (a scale a token, dynamic)."""

    name = "int8_linear"
    title = "linear layers in int8"


class W4A8Linear(_LinearPass):
    """Linear layers run on 4-bit weights (a 4-bit scale for 16 inputs) and int8 activations (a scale a token)."""

    name = "w4a8_linear"
    title = "linear layers on 4-bit weights and int8 activations"
    conflicts = ("int8_linear", "w4a4_linear")
    weights = "vsq4-v16-s4"


class W4A4Linear(_LinearPass):
    """Linear layers run on 4-bit weights and 4-bit activations, both with a 4-bit scale for 16 inputs."""

    name = "w4a4_linear"
    title = "linear layers on 4-bit weights and 4-bit activations"
    conflicts = ("int8_linear", "w4a8_linear")
    weights = "vsq4-v16-s4"
    activations = "vsq4-v16-s4"


class _ConvolutionPass(_KernelPass):
    layer = staticmethod(convolution_layer)
    after = ("fold_batch_norm", "fold_linear_chain", "channels_last")
    defaults: ClassVar[Mapping[str, object]] = {"minimum_channels": 16, "skip": ()}
    reason = "no 2-d convolution of one group with a constant float32 weight is wide enough and not skipped"


class Int8Convolution(_ConvolutionPass):
    """Convolutions run on int8 weights (a scale an output channel) and int8 activations (a scale an image, dynamic)."""

    name = "int8_convolution"
    title = "convolutions in int8"


class W4A8Convolution(_ConvolutionPass):
    """Convolutions run on 4-bit weights (a 4-bit scale for 16 channels) and int8 activations (a scale an image)."""

    name = "w4a8_convolution"
    title = "convolutions on 4-bit weights and int8 activations"
    conflicts = ("int8_convolution",)
    weights = "vsq4-v16-s4"


class QuantisedEmbedding(GraphPass):
    """Embedding tables are stored encoded; a lookup decodes only the rows that it takes.

    A table that is also sliced by position is decoded for the slice when the graph is loaded. Options: `format` of the
    rows; `minimum_features`, below which (rows or features) a table stays as it is; `skip`, module paths whose tables
    stay.
    """

    name = "quantised_embedding"
    title = "embedding tables stored encoded"
    changes_numerics = True
    after = ("fold_linear_chain",)
    defaults: ClassVar[Mapping[str, object]] = {"format": "vsq4-v16-s4", "minimum_features": 16, "skip": ()}
    reason = "no float32 table is looked up that is wide enough, not skipped and read in no other way"

    def find(self, graph: Graph, options: Mapping[str, object]) -> list[Match]:
        """The lookups and slices of each table."""
        name = options["format"]
        assert isinstance(name, str)
        form = get_format(name)
        least = check_width(f"{self.name}.minimum_features", options["minimum_features"])
        skip = check_skip(f"{self.name}.skip", options["skip"], graph)
        units = quantisable_units(graph, skip=skip, minimum_features=least)
        tables = [unit.table for unit in units if unit.table is not None and not unit.layers]
        return [match for table in tables for match in Placement(table, form).matches()]

    def rewrite(self, graph: Graph, matches: list[Match], options: Mapping[str, object]) -> Graph:
        """Lookups and slices of encoded tables."""
        return place(graph, matches)
