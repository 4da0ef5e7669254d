"""Preparing a float graph for a scheme from data: equalised inputs, and weights rounded for the inputs that occur."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from taut.errors import ArgumentError, DataError, GuardError
from taut.graph import Builder, Graph, Interpreter, Node, Ref, TensorType, eliminate_dead_code, rewrite
from taut.numerics import Format, convolution_rows, encode, from_convolution_rows
from taut.transform._patterns import emit_layer, layer
from taut.transform.quantisation._emit import Placement
from taut.transform.quantisation._layers import QuantisableLayer
from taut.transform.quantisation._quantise import quantised_layers

# Square roots of mean squares, of the inputs to this power over those of the weights to the rest. Between 0.3 and 0.5
# the error of MiniLM's outputs is flat; 0.4 was the least on text that no benchmark uses.
_STRENGTH = 0.4
_IMAGES_AT_ONCE = 16


def calibrate(
    graph: Graph,
    batches: Sequence[Sequence[Tensor]],
    scheme: str,
    *,
    layers: Sequence[str] = (),
    skip: Sequence[str] = (),
    minimum_features: int = 16,
    progress: Callable[[str, float], None] | None = None,
) -> Graph:
    """The float graph prepared for quantisation by a scheme, from unlabelled inputs.

    Two steps. Where the scheme quantises activations, the input of each linear layer is divided, feature by feature, so
    that large features and small ones share a vector better, and the weight is multiplied by the same (Xiao et al.,
    SmoothQuant, 2023, section 4); layers that read one value share its division. Then weights become values of their
    format, rounded so that the layers' outputs on these inputs vary least about their mean error (Frantar et al., GPTQ,
    2023), and that mean goes into the bias (Nagel et al., Data-Free Quantization, 2019, section 4.2). The pass
    `quantise`, or one on kernels, with the same scheme finds exactly these codes again.

    The result is a graph of its own: a recipe that is replayed on the model does not repeat this step.

    Args:
        graph: the float graph, after all folding.
        batches: inputs of the graph; some hundred sentences or images like those of later use, with little padding,
            as padding counts like the rest.
        scheme: as the option of `quantise`; likewise `layers`, `skip` and `minimum_features`.
        layers: exceptions as "path=scheme".
        skip: module paths whose layers stay.
        minimum_features: narrower layers stay.
        progress: told what is being done, and the share that is done.

    Raises:
        ArgumentError: an unknown scheme or path, or no layer for which the scheme's rounding can use data.
        DataError: no batch, one that the graph does not take, or layer inputs with NaN or infinity.
    """
    found = _found(graph, scheme, layers, skip, minimum_features)
    if not found:
        raise ArgumentError(
            "scheme",
            scheme,
            expected="integer weights with a coarse scale a row, on at least one layer of the graph",
            fix="quantise without calibration",
        )
    tell = progress or (lambda _doing, _share: None)
    moments = _moments(graph, found, batches, tell)
    divisors = _divisors(graph, found, moments)
    made: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    divided: dict[Ref, Ref] = {}
    places = {_layer(place).node.id: place for place in found}

    def visit(node: Node, builder: Builder) -> Ref | None:
        if node.id not in places:
            return None
        place = places[node.id]
        linear = _layer(place)
        assert isinstance(linear.input, Ref)
        divisor = divisors.get(linear.input)
        key = (linear.name, node.id if divisor is not None else -1)
        if key not in made:
            tell(f"rounding {linear.path}", (1 + len(made) / len(places)) / 2)
            made[key] = _rounded(place, _shared(found, place, moments), divisor)
        values, lost = made[key]
        source = builder.map(linear.input)
        assert isinstance(source, Ref)
        if divisor is not None:
            if linear.input not in divided:
                divided[linear.input] = _divided(builder, source, divisor, node)
            source = divided[linear.input]
        whole = layer(graph, node)
        assert whole is not None
        bias = _corrected(whole.bias, lost, moments[_key(place)].mean)
        return emit_layer(builder, graph, node, source, values, bias, like=node)

    return rewrite(graph, visit)


def calibratable_layers(
    graph: Graph, scheme: str, *, layers: Sequence[str] = (), skip: Sequence[str] = (), minimum_features: int = 16
) -> dict[str, Format]:
    """The layers that `calibrate` would prepare with these arguments, by path, with the formats of their weights."""
    return {_layer(place).path: place.weights for place in _found(graph, scheme, layers, skip, minimum_features)}


def _found(
    graph: Graph, scheme: str, layers: Sequence[str], skip: Sequence[str], minimum_features: int
) -> list[Placement]:
    options = {"scheme": scheme, "layers": tuple(layers), "skip": tuple(skip), "minimum_features": minimum_features}
    return [place for place in quantised_layers(graph, options) if _served(graph, place)]


def _served(graph: Graph, place: Placement) -> bool:
    coarse, scales = place.weights.coarse, place.weights.scales
    integer = scales is None or scales.kind == "integer"
    per_row = coarse is not None and coarse.per == "row" and place.weights.offset == "none"
    return integer and per_row and layer(graph, _layer(place).node) is not None


def _layer(place: Placement) -> QuantisableLayer:
    assert isinstance(place.found, QuantisableLayer)
    return place.found


@dataclasses.dataclass(frozen=True, slots=True)
class _Moments:
    """Sums of x x^T over the inputs x of a layer, each with a one behind it: `(P + 1, P + 1)`, float64."""

    sums: Tensor

    @property
    def mean(self) -> Tensor:
        return self.sums[-1, :-1] / self.sums[-1, -1]

    @property
    def squares(self) -> Tensor:
        return self.sums.diagonal()[:-1]

    @property
    def about_mean(self) -> Tensor:
        """Sums of (x - mean) (x - mean)^T."""
        found = self.sums[:-1, :-1] - torch.outer(self.mean, self.sums[-1, :-1])
        found.diagonal().clamp_(min=0)
        return found


def _moments(
    graph: Graph,
    found: list[Placement],
    batches: Sequence[Sequence[Tensor]],
    tell: Callable[[str, float], None],
) -> dict[tuple, _Moments]:
    """Of the inputs of each layer, by input value and window."""
    if not batches:
        raise DataError("no calibration data", expected="at least one batch")
    readers = {_key(place): _layer(place) for place in found}
    values = list(dict.fromkeys(linear.input for linear in readers.values()))
    run = Interpreter(eliminate_dead_code(dataclasses.replace(graph, outputs=tuple(values))))
    sums: dict[tuple, Tensor] = {}
    for index, batch in enumerate(batches):
        tell("running the calibration data", index / len(batches) / 2)
        try:
            inputs = dict(zip(values, run(*batch), strict=True))
        except GuardError as error:
            raise DataError(f"batch {index}: {error.message}", expected=error.expected, fix=error.fix) from error
        for key, linear in readers.items():
            total = _sum_of_squares(inputs[linear.input], linear)
            if not bool(torch.isfinite(total).all()):
                raise DataError(
                    f"batch {index}: the input of {linear.path} holds NaN or infinity", expected="finite inputs"
                )
            sums[key] = sums[key] + total if key in sums else total
    return {key: _Moments(total) for key, total in sums.items()}


def _key(place: Placement) -> tuple:
    linear = _layer(place)
    window = linear.window
    shape = () if window is None else (*linear.weight.shape[2:], window.stride, window.padding, window.dilation)
    return (linear.input, shape)


def _sum_of_squares(x: Tensor, linear: QuantisableLayer) -> Tensor:
    """The sums of `_Moments`; of a convolution over all windows, in the order (taps, channels) of the format's rows."""
    if linear.window is None:
        rows = functional.pad(x.reshape(-1, x.shape[-1]).float(), (0, 1), value=1.0)
        return (rows.T @ rows).double()
    kernel, window, padding = tuple(linear.weight.shape[2:]), linear.window, linear.window.padding
    assert padding is not None
    total = torch.zeros(())
    for part in x.float().split(_IMAGES_AT_ONCE):
        patches = functional.unfold(part, kernel, window.dilation, padding, window.stride)
        patches = patches.unflatten(1, (x.shape[1], -1)).permute(2, 1, 0, 3).flatten(2).flatten(0, 1)
        patches = functional.pad(patches, (0, 0, 0, 1), value=1.0)
        total = total + (patches @ patches.T).double()
    return total


def _shared(found: list[Placement], place: Placement, moments: dict[tuple, _Moments]) -> Tensor:
    """About their means, the moments of all layers that read the weight of this one."""
    name = _layer(place).name
    keys = dict.fromkeys(_key(other) for other in found if _layer(other).name == name)
    return torch.stack([moments[key].about_mean for key in keys]).sum(0)


def _divisors(graph: Graph, found: list[Placement], moments: dict[tuple, _Moments]) -> dict[Ref, Tensor]:
    """`(K,)` float32 for each value that only linear layers with weights of their own read through a division."""
    groups: dict[Ref, list[Placement]] = {}
    for place in found:
        linear = _layer(place)
        alone = sum(_layer(other).name == linear.name for other in found) == 1
        if linear.window is None and place.activations is not None and alone and isinstance(linear.input, Ref):
            groups.setdefault(linear.input, []).append(place)
    made: dict[Ref, Tensor] = {}
    for value, places in groups.items():
        sizes = moments[_key(places[0])].squares
        weights = torch.cat([_layer(place).weight for place in places]).double().square().mean(0)
        useful = (sizes > 0) & (weights > 0)
        if not bool(useful.any()):
            continue
        logs = _STRENGTH / 2 * sizes.log() - (1 - _STRENGTH) / 2 * weights.log()
        made[value] = torch.where(useful, (logs - logs[useful].mean()).exp(), 1.0).float()
    return made


def _rounded(place: Placement, moments: Tensor, divisor: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weight as float32 values of its format in its own shape; and what it lost, `(rows, P)`, as to undivided x."""
    linear = _layer(place)
    rows = linear.weight if linear.window is None else convolution_rows(linear.weight)
    whole = rows.flatten(1)
    if divisor is not None:
        rows = rows * divisor
        moments = moments / torch.outer(divisor.double(), divisor.double())
    if place.kernel is not None and not place.kernel.encoded:  # that kernel rounds the float weight itself
        return (rows if linear.window is None else linear.weight), torch.zeros_like(whole)
    values = encode(rows, place.weights, chooser="compensate", moments=moments).decode()
    lost = whole - (values if divisor is None else values / divisor).flatten(1)
    if linear.window is not None:
        values = from_convolution_rows(values, tuple(linear.weight.shape[2:]))
    return values, lost


def _corrected(bias: Tensor | None, lost: Tensor, mean: Tensor) -> Tensor | None:
    """The bias that makes good what the rounded weight loses on the mean input."""
    shift = (lost.double() @ mean).float()
    if not bool(shift.any()):
        return bias
    return shift if bias is None else bias + shift


def _divided(builder: Builder, source: Ref, divisor: Tensor, node: Node) -> Ref:
    kind = builder.value_type(source)
    assert isinstance(kind, TensorType)
    scale = builder.constant(1 / divisor, f"{node.module_path or 'layer'}.equalise")
    return builder.add("aten.mul.Tensor", source, scale, outputs=kind, module_path=node.module_path, source=node.source)
