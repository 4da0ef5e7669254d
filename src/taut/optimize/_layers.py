"""How each weight of a result is stored: format, bytes and error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence, Set

import torch

from taut.graph import Argument, Graph, Node, Ref
from taut.numerics import convolution_rows, from_convolution_rows
from taut.optimize import _report
from taut.optimize._encoded import BUFFERS
from taut.optimize._planner import Steps
from taut.transform import apply_recipe

QUANTISING = (
    "int8_linear",
    "w4a8_linear",
    "w4a4_linear",
    "int8_convolution",
    "w4a8_convolution",
    "quantised_embedding",
    "quantise",
)
"""The passes that store weights in another number format."""

_KERNELS = {
    "taut.int8_linear.default": "int8-channel",
    "taut.vector_linear.default": "vsq4-v16-s4",
    "taut.int8_convolution.default": "int8-channel",
    "taut.vector_convolution.default": "vsq4-v16-s4",
}
"""The format that each kernel packs, its constants being arguments 1 and 2."""
_PROBES = 1024


@dataclasses.dataclass(frozen=True)
class _Stored:
    """An encoded weight: its name in the float graph, its format, the bytes of its constants, and how it runs."""

    name: str
    form: str
    bytes: int
    kernel: bool
    node: Node


def stored_layers(base: Graph, after: Graph, steps: Steps, errors: Mapping[str, float]) -> tuple[_report.Layer, ...]:
    """Every weight of the graph that the first quantising pass met, in its order; empty without such a pass.

    Args:
        base: the captured graph.
        after: what the steps made of it.
        steps: the recipe.
        errors: measured error of the output by layer path, where it was measured.
    """
    first = next((index for index, (name, _) in enumerate(steps) if name in QUANTISING), None)
    if first is None:
        return ()
    before, _ = apply_recipe(base, steps[:first])
    stored = {found.name: found for found in _encoded(after)}
    kept = {str(node.args[1]): after.constants[str(node.args[0])] for node in after.nodes if node.op == "constant"}
    held = {str(node.args[1]) for node in before.nodes if node.op == "constant"}
    rows = []
    for name, kind, weight in _weights(before):
        path = "+".join(part.removesuffix(".weight") for part in name.split("+"))
        found = stored.get(name)
        now = kept.get(name, weight)
        rows.append(
            _report.Layer(
                path=path,
                kind=kind,
                format=found.form if found else str(now.dtype).removeprefix("torch."),
                runs=("kernel" if found.kernel else "emulated") if found else "unchanged",
                elements=weight.numel(),
                bytes_before=weight.numel() * weight.element_size(),
                bytes_after=found.bytes if found else now.numel() * now.element_size(),
                sqnr_db=_sqnr(weight, found, after, kept.keys() - held) if found else None,
                error=errors.get(path) if found else None,
            )
        )
    return tuple(rows)


def _encoded(graph: Graph) -> Iterator[_Stored]:
    for node in graph.nodes:
        if node.op in _KERNELS:
            parts = node.args[1:3]
            yield _Stored(_name(graph, parts[0], ".packed"), _KERNELS[node.op], _bytes(graph, parts), True, node)
        elif node.op in BUFFERS:
            position = BUFFERS[node.op]
            parts, form = node.args[position], str(node.args[position + 1])
            assert isinstance(parts, tuple)
            lookup = node.op.startswith("taut.encoded_embedding")
            yield _Stored(_name(graph, parts[0], f".{form}."), form, _bytes(graph, parts), lookup, node)


def _name(graph: Graph, part: Argument, end: str) -> str:
    """The name of the weight behind one of its constants."""
    assert isinstance(part, Ref)
    return str(graph.nodes[part.node].args[1]).rpartition(end)[0]


def _bytes(graph: Graph, parts: Sequence[Argument]) -> int:
    tensors = [tensor for part in parts if (tensor := graph.constant(part)) is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _weights(graph: Graph) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Name, kind and content (rows first) of the weights of linear layers, convolutions and embeddings."""
    seen: set[str] = set()
    for node in graph.nodes:
        name = node.op.split(".")[1] if node.op.startswith("aten.") else ""
        kind = {"linear": "linear", "addmm": "linear", "embedding": "embedding"}.get(name)
        kind = "convolution" if name.startswith("conv") else kind
        if kind is None:
            continue
        place = node.args[{"embedding": 0, "addmm": 2}.get(name, 1)]
        weight = graph.constant(place)
        if weight is None or not isinstance(place, Ref) or weight.dim() < 2:
            continue
        named = str(graph.nodes[place.node].args[1])
        if named not in seen:
            seen.add(named)
            yield named, kind, weight.t() if name == "addmm" else weight


def _sqnr(weight: torch.Tensor, found: _Stored, graph: Graph, made: Set[str]) -> float | None:
    """Decibels; None where the format holds the weight exactly."""
    with torch.inference_mode():
        decoded = _packed(weight, found.node, graph) if found.node.op in _KERNELS else _decoded(weight, found, graph)
        factor = _input_factor(found.node, graph, made)
        decoded = decoded if factor is None else decoded * factor
        noise = float((weight - decoded).double().square().sum())
        signal = float(weight.double().square().sum())
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None


def _input_factor(node: Node, graph: Graph, made: Set[str]) -> torch.Tensor | None:
    """`(K,)`, by which calibration multiplies the layer's input, and its weight in effect; None where it does not."""
    reader = node
    if node.op in BUFFERS:
        reader = next((user for user in graph.nodes if len(user.args) > 1 and user.args[1] == Ref(node.id)), node)
    source = reader.args[0]
    while isinstance(source, Ref) and graph.nodes[source.node].op.startswith("taut.fake_quantise"):
        source = graph.nodes[source.node].args[0]
    if not isinstance(source, Ref) or graph.nodes[source.node].op != "aten.mul.Tensor":
        return None
    factor = graph.nodes[source.node].args[1]
    if not isinstance(factor, Ref) or graph.nodes[factor.node].op != "constant":
        return None
    name = str(graph.nodes[factor.node].args[1])
    return graph.constant(factor) if name in made and name.endswith(".equalise") else None


def _decoded(weight: torch.Tensor, found: _Stored, graph: Graph) -> torch.Tensor:
    parts = found.node.args[BUFFERS[found.node.op]]
    assert isinstance(parts, tuple)
    rows = convolution_rows(weight) if weight.dim() == 4 else weight
    decoded = torch.ops.taut.decode([graph.constant(part) for part in parts], found.form, list(rows.shape))
    return from_convolution_rows(decoded, tuple(weight.shape[2:])) if weight.dim() == 4 else decoded


def _packed(weight: torch.Tensor, node: Node, graph: Graph) -> torch.Tensor:
    """What a kernel holds: its answers to inputs with a single 1, which int8 activations represent exactly."""
    _, name, overload = node.op.split(".")
    operator = getattr(getattr(torch.ops.taut, name), overload)
    packed, scales = graph.constant(node.args[1]), graph.constant(node.args[2])
    window = [list(weight.shape[2:]), [1, 1], [0, 0], [1, 1]] if weight.dim() == 4 else []
    inputs = ["int8"] if name == "vector_linear" else []
    depth = weight[0].numel()
    columns = []
    for start in range(0, depth, _PROBES):
        count = min(_PROBES, depth - start)
        probe = torch.zeros(count, depth)
        probe[torch.arange(count), torch.arange(start, start + count)] = 1.0
        answer = operator(probe.reshape(count, *weight.shape[1:]), packed, scales, None, *window, "none", *inputs)
        columns.append(answer.reshape(count, -1))
    return torch.cat(columns).t().reshape(weight.shape)
