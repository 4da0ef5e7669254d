"""The nodes that stand for a quantised layer: on its kernel, or emulated with float arithmetic."""

from __future__ import annotations

import dataclasses
import math

import torch

from taut.errors import TransformError
from taut.graph import Argument, Builder, Graph, Node, Ref, TensorType, rewrite
from taut.numerics import Encoded, Format, convolution_rows
from taut.transform._base import Match
from taut.transform._layouts import settle_layouts
from taut.transform._patterns import LINEAR
from taut.transform.quantisation._kernels import VECTOR_LINEAR, Kernel, pack
from taut.transform.quantisation._layers import QuantisableLayer
from taut.transform.quantisation._memo import encode_once
from taut.transform.quantisation._tables import LOOKUP, Table

DECODE = "taut.decode.default"
ENCODED_EMBEDDING = "taut.encoded_embedding.default"
FAKE_QUANTISE = "taut.fake_quantise.default"
_CONVOLUTION = "aten.conv2d.default"


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """What stands where a layer, or a reader of a table, stood.

    Attributes:
        found: the layer or table.
        weights: the format of its weight.
        activations: the format of the input of a layer; None leaves it in float32.
        kernel: the kernel that serves the layer; None where it is emulated.
    """

    found: QuantisableLayer | Table
    weights: Format
    activations: Format | None = None
    kernel: Kernel | None = None

    def matches(self) -> list[Match]:
        """The replaced nodes."""
        found = self.found
        if isinstance(found, Table):
            slices = [Match((node.id,), (DECODE, node.op), self) for node in found.slices]
            return [Match((node.id,), (ENCODED_EMBEDDING,), self) for node in found.lookups] + slices
        if self.kernel is not None:
            return [Match(found.nodes, (self.kernel.op,), self)]
        head = () if self.activations is None else (FAKE_QUANTISE,)
        return [Match((found.node.id,), (*head, LINEAR if found.window is None else _CONVOLUTION), self)]


def place(graph: Graph, matches: list[Match]) -> Graph:
    """The graph with quantised layers in place of the matched nodes; each `details` is a `Placement`."""
    places = {match.nodes[-1]: match.details for match in matches}
    emitters: dict[Builder, Emitter] = {}

    def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
        here = places.get(node.id)
        if not isinstance(here, Placement):
            return None
        emitter = emitters.setdefault(builder, Emitter(graph, builder))
        if isinstance(here.found, Table):
            return emitter.read(node, here.found, here.weights)
        if here.kernel is not None:
            return emitter.native(here.found, here.weights, here.kernel)
        return emitter.emulated(here.found, here.weights, here.activations)

    rewritten = rewrite(graph, visit)
    images = any(isinstance(here, Placement) and _is_convolution(here.found) for here in places.values())
    return settle_layouts(rewritten) if images else rewritten


class Emitter:
    """Appends quantised layers to a new graph; a weight that several nodes read is encoded once."""

    def __init__(self, graph: Graph, builder: Builder) -> None:
        self._graph = graph
        self._builder = builder
        self._encoded: dict[tuple[str, str], Encoded] = {}
        self._packed: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]] = {}
        self._decoded: dict[tuple[str, str], Ref] = {}
        self._inputs: dict[tuple[Ref, str], Ref] = {}

    def native(self, found: QuantisableLayer, weights: Format, kernel: Kernel) -> Ref:
        """A layer on its kernel."""
        packed, scales = self._pack(found, weights, kernel)
        builder, window = self._builder, found.window
        arguments: list[Argument] = [
            builder.map(found.input),
            builder.constant(packed, f"{found.name}.packed"),
            builder.constant(scales, f"{found.name}.scales"),
            builder.map(found.bias),
        ]
        if window is not None:
            assert window.padding is not None
            arguments += [tuple(found.weight.shape[2:]), window.stride, window.padding, window.dilation]
        arguments.append(found.activation)
        if kernel.op == VECTOR_LINEAR:
            arguments.append(kernel.inputs)
        return self._add(kernel.op, *arguments, like=found.last, origin=found.node)

    def emulated(self, found: QuantisableLayer, weights: Format, activations: Format | None) -> Ref:
        """A float layer on the decoded weight, and on activations as the formats make them; activation not fused."""
        builder, node = self._builder, found.node
        weight = self.decoded_rows(found.name, _rows(found), weights)
        source = builder.map(found.input)
        assert isinstance(source, Ref)
        if found.window is None:
            source = self.quantised(source, activations, node, image=False)
            return self._add(LINEAR, source, weight, builder.map(found.bias), like=node, origin=node)
        channels, depth, *kernel = found.weight.shape
        taps = math.prod(kernel)
        full = torch.float32
        swapped = self._add(
            "aten.permute.default", weight, (0, 2, 1), like=TensorType((channels, depth, taps), full), origin=node
        )
        image = TensorType((channels, depth, *kernel), full)
        weight = self._add("aten.unflatten.int", swapped, 2, tuple(kernel), like=image, origin=node)
        source = self.quantised(source, activations, node, image=True)
        window = found.window
        arguments = (builder.map(found.bias), window.stride, window.padding, window.dilation, 1)
        return self._add(_CONVOLUTION, source, weight, *arguments, like=node, origin=node)

    def read(self, node: Node, table: Table, form: Format) -> Ref:
        """A lookup, which decodes only the rows that it takes; or a slice of the decoded table."""
        rest = tuple(self._builder.map(argument) for argument in node.args[1:])
        kwargs = {name: self._builder.map(value) for name, value in node.kwargs}
        if node.op != LOOKUP:
            weight = self.decoded_rows(table.name, table.weight, form)
            return self._add(node.op, weight, *rest, like=node, kwargs=kwargs)
        buffers, shape = self.buffers(table.name, table.weight, form)
        return self._add(ENCODED_EMBEDDING, rest[0], buffers, form.name, shape, like=node)

    def decoded_rows(self, name: str, rows: torch.Tensor, form: Format) -> Ref:
        """The float32 values of an encoded constant; the interpreter computes them once, when it loads the graph."""
        key = (name, form.name)
        if key not in self._decoded:
            buffers, shape = self.buffers(name, rows, form)
            kind = TensorType(shape, torch.float32)
            self._decoded[key] = self._add(DECODE, buffers, form.name, shape, like=kind)
        return self._decoded[key]

    def buffers(self, name: str, rows: torch.Tensor, form: Format) -> tuple[tuple[Ref, ...], tuple[int, ...]]:
        """The constants of an encoded tensor, and its shape."""
        encoded = self._encode(name, rows, form)
        made = tuple(
            self._builder.constant(buffer, f"{name}.{form.name}.{part}") for part, buffer in encoded.buffers.items()
        )
        return made, tuple(encoded.shape)

    def _encode(self, name: str, rows: torch.Tensor, form: Format) -> Encoded:
        key = (name, form.name)
        if key not in self._encoded:
            _check_finite(name, rows)
            self._encoded[key] = encode_once(rows, form)
        return self._encoded[key]

    def _pack(self, found: QuantisableLayer, weights: Format, kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
        key = (found.name, kernel.op)
        if key not in self._packed:
            _check_finite(found.name, found.weight)
            encoded = self._encode(found.name, _rows(found), weights) if kernel.encoded else None
            self._packed[key] = pack(kernel, found.weight, encoded)
        return self._packed[key]

    def quantised(self, source: Ref, form: Format | None, node: Node, *, image: bool) -> Ref:
        """The input of a layer as its format makes it; computed once for all layers that read it."""
        if form is None:
            return source
        key = (source, form.name)
        if key not in self._inputs:
            if image:
                self._inputs[key] = self._quantised_image(source, form, node)
            else:
                self._inputs[key] = self._add(FAKE_QUANTISE, source, form.name, -1, like=source, origin=node)
        return self._inputs[key]

    def _quantised_image(self, image: Ref, form: Format, node: Node) -> Ref:
        """An image (N, C, H, W) as its format makes it: one coarse scale an image, vectors along the channels.

        The image is laid out as (N, H * W * C) with the channels padded to whole vectors, so that rows of the format
        are images.
        """
        kind = self._builder.value_type(image)
        assert isinstance(kind, TensorType)
        count, channels, height, width = kind.shape
        assert isinstance(channels, int)
        vector = form.vector or 1
        padded = channels + -channels % vector
        full = kind.dtype
        value = self._add(
            "aten.permute.default",
            image,
            (0, 2, 3, 1),
            like=TensorType((count, height, width, channels), full),
            origin=node,
        )
        if padded != channels:
            wide = TensorType((count, height, width, padded), full)
            value = self._add("aten.constant_pad_nd.default", value, (0, padded - channels), like=wide, origin=node)
        flat = TensorType((count, height * width * padded), full)
        rows = self._add("aten.flatten.using_ints", value, 1, 3, like=flat, origin=node)
        rows = self._add(FAKE_QUANTISE, rows, form.name, -1, like=flat, origin=node)
        value = self._add("aten.reshape_as.default", rows, value, like=value, origin=node)
        if padded != channels:
            narrow = TensorType((count, height, width, channels), full)
            value = self._add("aten.slice.Tensor", value, 3, 0, channels, like=narrow, origin=node)
        return self._add("aten.permute.default", value, (0, 3, 1, 2), like=image, origin=node)

    def _add(
        self,
        op: str,
        *arguments: Argument,
        like: Node | Ref | TensorType,
        origin: Node | None = None,
        kwargs: dict[str, Argument] | None = None,
    ) -> Ref:
        kind = like.outputs[0] if isinstance(like, Node) else like
        if isinstance(kind, Ref):
            kind = self._builder.value_type(kind)
        place = origin if origin is not None else like if isinstance(like, Node) else None
        path, source = ("", "") if place is None else (place.module_path, place.source)
        return self._builder.add(op, *arguments, outputs=kind, kwargs=kwargs, module_path=path, source=source)


def _rows(found: QuantisableLayer) -> torch.Tensor:
    """The weight as a format takes it: (out, in), or (out, taps, in)."""
    return found.weight if found.window is None else convolution_rows(found.weight)


def _check_finite(name: str, weight: torch.Tensor) -> None:
    """Raise a TransformError if a weight holds NaN or infinity."""
    if not bool(torch.isfinite(weight).all()):
        raise TransformError(
            f"the weight {name} holds NaN or infinity",
            expected="finite values",
            fix="check the checkpoint, or leave the layer as it is with skip",
        )


def _is_convolution(found: QuantisableLayer | Table) -> bool:
    return isinstance(found, QuantisableLayer) and found.window is not None
