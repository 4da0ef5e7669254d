"""The arms of `quantised_accuracy`: how a network is quantised."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from taut.graph import Graph, Interpreter
from taut.numerics import convolution_rows, encode, from_convolution_rows, get_format
from taut.transform import calibrate, get_pass

Forward = Callable[..., Tensor]
Score = Callable[[np.ndarray, np.ndarray], float]
Activation = Callable[[Tensor], Tensor]

_RANGES = ("max", "percentile", "percentile-99.99", "percentile-99.999", "entropy", "mse")
_SAMPLE = 1 << 18  # values of a layer's input that calibration looks at
_TRIALS = 4  # calibration batches on which choices are compared


@dataclasses.dataclass(frozen=True)
class Task:
    """A network with what is measured on it.

    Attributes:
        name: of the network.
        network: float32, batch norm folded.
        graph: the same, captured.
        layers: the modules that are quantised, by path.
        calibration: inputs.
        metrics: by name, (scores of all samples, indices) -> points.
        count: samples.
        evaluate: the scores of all samples from a network.
        skip: paths that the pass leaves.
    """

    name: str
    network: nn.Module
    graph: Graph
    layers: Mapping[str, nn.Module]
    calibration: Sequence[tuple[Tensor, ...]]
    metrics: dict[str, Score]
    count: int
    evaluate: Callable[[Forward], np.ndarray]
    skip: tuple[str, ...]


def vector_arm(task: Task, scheme: str, *, calibrated: bool) -> tuple[Forward, str]:
    """A scheme by the pass `quantise`, with or without calibration before it."""
    skip = list(task.skip)
    graph = calibrate(task.graph, task.calibration, scheme, skip=skip) if calibrated else task.graph
    graph = get_pass("quantise").apply(graph, scheme=scheme, skip=skip).graph
    kernels = sorted({node.op for node in graph.nodes if "linear" in node.op or "conv" in node.op} - _float_ops())
    return Interpreter(graph), f"on {', '.join(kernels)}" if kernels else "emulated"


def tensor_arm(task: Task) -> tuple[Forward, str]:
    """VS-Quant at W4A4 with the paper's coarse scale for the activations of the whole batch."""
    weights = get_format("vsq4-v16-s4")

    def activation(x: Tensor) -> Tensor:
        return encode(x.flatten(0, -2), "vsq4-v16-s4-tensor", chooser="requantise").decode().view(x.shape)

    network = _with_weights(task, lambda rows: encode(rows, weights).decode())
    return _with_inputs(network, dict.fromkeys(task.layers, activation)), "emulated"


def channel_arm(task: Task, scheme: str, *, calibrated: bool) -> tuple[Forward, str]:
    """One scale a channel and a token or layer: weights first, then activations, each with the best chooser.

    With `calibrated`, weights are those of `calibrate`, and its equalised network is one more candidate.
    """
    weight_bits, bits = int(scheme[1]), int(scheme[3])
    trials = task.calibration[:: max(1, len(task.calibration) // _TRIALS)][:_TRIALS]
    expected = [task.network(*batch) for batch in trials]

    def error(forward: Forward) -> float:
        return sum(float((forward(*batch) - y).square().sum()) for batch, y in zip(trials, expected, strict=True))

    if calibrated:
        weights = {"compensated": _with_calibrated_weights(task, f"int{weight_bits}-channel")}
    else:
        weights = {
            chooser: _with_weights(
                task, lambda rows, chooser=chooser: encode(rows, f"int{weight_bits}-channel", chooser=chooser).decode()
            )
            for chooser in _RANGES
        }
    weight_chooser = min(weights, key=lambda name: error(weights[name]))
    network = weights[weight_chooser]
    samples = _samples(task, trials)
    candidates: dict[str, dict[str, Activation]] = {"dynamic": dict.fromkeys(task.layers, _dynamic(bits))}
    for kind, chooser in itertools.product(("int", "uint"), _RANGES):
        if kind == "int" or chooser in ("max", "mse"):
            made = {path: _static(sample, f"{kind}{bits}-tensor", chooser) for path, sample in samples.items()}
            candidates[f"{kind} {chooser} a layer"] = made
    activation = min(candidates, key=lambda name: error(_with_inputs(network, candidates[name])))
    found = _with_inputs(network, candidates[activation])
    if calibrated:
        equalised, _ = vector_arm(task, f"poc-{scheme}", calibrated=True)
        if error(equalised) < error(found):
            return equalised, "weights compensated, activations as the pass has them"
    return found, f"weights {weight_chooser}, activations {activation}"


def _dynamic(bits: int) -> Activation:
    """One scale a token, or an image."""

    def quantise(x: Tensor) -> Tensor:
        rows = x.flatten(1) if x.dim() == 4 else x
        return torch.ops.taut.fake_quantise(rows, f"int{bits}-channel", -1).view(x.shape)

    return quantise


def _static(sample: Tensor, number_format: str, chooser: str) -> Activation:
    """The scale, and zero point, that a chooser finds on a sample."""
    found = encode(sample[None], number_format, chooser=chooser)
    gammas, zero_points, elements = found.gammas(), found.zero_points(), found.format.elements
    assert gammas is not None
    scale = float(gammas[0])
    zero = 0.0 if zero_points is None else float(zero_points[0])
    low, high = float(elements.low), float(elements.high)  # pyright: ignore[reportAttributeAccessIssue]

    def quantise(x: Tensor) -> Tensor:
        return ((x / scale).round_().add_(zero).clamp_(low, high)).sub_(zero).mul_(scale)

    return quantise


def _samples(task: Task, batches: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Values of each layer's input, every n-th where there are many."""
    seen: dict[str, list[Tensor]] = {path: [] for path in task.layers}
    handles = [
        module.register_forward_pre_hook(functools.partial(_record, seen[path])) for path, module in task.layers.items()
    ]
    try:
        for batch in batches:
            task.network(*batch)
    finally:
        for handle in handles:
            handle.remove()
    whole = {path: torch.cat(parts) for path, parts in seen.items()}
    return {path: values[:: max(1, len(values) // _SAMPLE)].contiguous() for path, values in whole.items()}


def _record(seen: list[Tensor], _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    seen.append(inputs[0].flatten())


def _change(quantise: Activation, _: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    return quantise(inputs[0])


def _with_weights(task: Task, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of the network with other weights in the layers."""
    network = copy.deepcopy(task.network)
    for path in task.layers:
        module = network.get_submodule(path)
        weight = module.weight
        assert isinstance(weight, nn.Parameter)
        if weight.dim() == 2:
            changed = change(weight)
        else:
            changed = from_convolution_rows(change(convolution_rows(weight)), tuple(weight.shape[2:]))
        module.weight = nn.Parameter(changed, requires_grad=False)
    return network


def _with_calibrated_weights(task: Task, number_format: str) -> nn.Module:
    """A copy of the network with the weights of `calibrate` in the layers."""
    graph = calibrate(task.graph, task.calibration, number_format, skip=list(task.skip))
    network = copy.deepcopy(task.network)
    for node in graph.nodes:
        path, _, kind = str(node.args[1]).rpartition(".") if node.op == "constant" else ("", "", "")
        if path in task.layers:
            value = graph.constants[str(node.args[0])]
            setattr(network.get_submodule(path), kind, nn.Parameter(value.clone(), requires_grad=False))
    return network


def _with_inputs(network: nn.Module, change: dict[str, Activation]) -> Forward:
    """The network as a function, with each layer's input changed."""

    def forward(*inputs: Tensor) -> Tensor:
        with _hooked(network, change):
            return network(*inputs)

    return forward


@contextmanager
def _hooked(network: nn.Module, change: dict[str, Activation]) -> Iterator[None]:
    handles = [
        network.get_submodule(path).register_forward_pre_hook(functools.partial(_change, quantise))
        for path, quantise in change.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _float_ops() -> set[str]:
    return {"aten.linear.default", "aten.conv2d.default"}
