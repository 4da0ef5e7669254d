"""Short training of the float weights for the formats that they will be stored in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from taut.errors import ArgumentError, TransformError
from taut.graph import Builder, Graph, Interpreter, Node, Ref, TensorType, rewrite
from taut.numerics import convolution_rows, encode, from_convolution_rows
from taut.transform._catalogue import get_pass
from taut.transform._patterns import layer
from taut.transform.quantisation._emit import Emitter, Placement
from taut.transform.quantisation._layers import QuantisableLayer
from taut.transform.quantisation._quantise import placements
from taut.transform.quantisation._sensitivity import (
    Batch,
    Progress,
    float_leaves,
    reference_outputs,
    relative_error,
)
from taut.transform.quantisation._tables import Table


@dataclasses.dataclass(frozen=True, slots=True)
class FineTuned:
    """What fine-tuning gave.

    Attributes:
        graph: the float graph with the trained weights, which are values of their formats; or, where training did not
            help, the one that was given.
        before: error of the outputs once the given graph is quantised, as `SensitivityEntry.error`, on the batches.
        after: the same of `graph`; never larger.
        losses: the loss of each step.
    """

    graph: Graph
    before: float
    after: float
    losses: tuple[float, ...]


def fine_tune(
    graph: Graph,
    batches: Sequence[Batch],
    scheme: str,
    *,
    layers: Sequence[str] = (),
    skip: Sequence[str] = (),
    minimum_features: int = 16,
    reference: Graph | None = None,
    steps: int = 100,
    learning_rate: float = 3e-3,
    progress: Progress | None = None,
) -> FineTuned:
    """Train the weights that a scheme will quantise, so that the quantised graph gives what the float graph gives.

    The targets are the outputs of the float graph, so that no labels are needed; the loss is their squared error over
    their squared size. Weights and activations are quantised in each step, and gradients pass straight through the
    rounding (Bengio et al., 2013). Adam, with a cosine schedule. Tables and biases stay. The result is a graph of its
    own: a recipe that is replayed on the model does not repeat this step.

    Args:
        graph: the float graph, after all folding.
        batches: inputs of the graph, taken in turn.
        scheme: as the option of `quantise`; likewise `layers`, `skip` and `minimum_features`.
        layers: exceptions as "path=scheme".
        skip: module paths whose layers stay.
        minimum_features: narrower layers stay.
        reference: what gives the targets, where the graph itself was calibrated already; by default the graph.
        steps: batches to train on.
        learning_rate: of the first step, in units of the root mean square of each weight.
        progress: told what is being done, and the share that is done.

    Raises:
        ArgumentError: an unknown scheme or path, no layer to train, or steps or a learning rate not above 0.
        DataError: no batch, one that the graph does not take, or outputs without a finite floating-point value.
        TransformError: if the loss becomes NaN or infinite.
    """
    if steps < 1:
        raise ArgumentError("steps", steps, expected="a whole number from 1")
    if not 0 < learning_rate < math.inf:
        raise ArgumentError("learning_rate", learning_rate, expected="a number above 0")
    options = {
        "scheme": scheme,
        "layers": list(layers),
        "skip": list(skip),
        "minimum_features": minimum_features,
    }
    every = placements(graph, options)
    places = [
        place
        for place in every
        if isinstance(place.found, QuantisableLayer) and layer(graph, place.found.node) is not None
    ]
    tables = {place.found.name: place for place in every if isinstance(place.found, Table)}
    if not places:
        raise ArgumentError("scheme", scheme, expected="a scheme that quantises a linear layer or convolution here")
    targets = reference_outputs(graph if reference is None else reference, batches)
    before = relative_error(get_pass("quantise").apply(graph, **options).graph, batches, targets)
    weights = {_layer(place).name: _layer(place).weight.detach().clone() for place in places}
    student = _student(_with_weights(graph, _rounded_tables(tables)), places, list(weights))
    losses = _train(student, places, weights, batches, targets, steps, learning_rate, progress)
    # Values of a format are encoded as what they are, so that the pass finds the codes that were trained.
    formats = {_layer(place).name: place for place in places}
    trained = _with_weights(graph, {name: _rounded(weight, formats[name]) for name, weight in weights.items()})
    after = relative_error(get_pass("quantise").apply(trained, **options).graph, batches, targets)
    if not after < before:
        return FineTuned(graph, before, before, tuple(losses))
    return FineTuned(trained, before, after, tuple(losses))


def _layer(place: Placement) -> QuantisableLayer:
    assert isinstance(place.found, QuantisableLayer)
    return place.found


def _train(
    student: Graph,
    places: list[Placement],
    weights: dict[str, torch.Tensor],
    batches: Sequence[Batch],
    targets: list[list[torch.Tensor]],
    steps: int,
    learning_rate: float,
    progress: Progress | None,
) -> list[float]:
    """Train the weights in place; returns the losses."""
    formats = {_layer(place).name: place for place in places}
    run = Interpreter(student, gradients=True)
    for weight in weights.values():
        weight.requires_grad_(True)
    sizes = {name: float(weight.detach().square().mean().sqrt()) for name, weight in weights.items()}
    groups = [{"params": [weight], "lr": learning_rate * sizes[name]} for name, weight in weights.items()]
    optimiser = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses: list[float] = []
    with torch.enable_grad():
        for step in range(steps):
            if progress is not None:
                progress("fine-tuning", step / steps)
            index = step % len(batches)
            values = [_straight_through(weight, formats[name]) for name, weight in weights.items()]
            outputs = float_leaves(run(*batches[index], *values))
            pairs = [(got, want) for got, want in zip(outputs, targets[index], strict=True) if bool(want.any())]
            loss = torch.stack([(got - want).square().sum() / want.square().sum() for got, want in pairs]).mean()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise TransformError(f"fine-tuning diverged at step {step + 1}", fix="give a smaller learning_rate")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    for weight in weights.values():
        weight.requires_grad_(False)
    return losses


def _straight_through(weight: torch.Tensor, place: Placement) -> torch.Tensor:
    value = weight.detach()
    return weight + (_rounded(value, place) - value)


def _rounded(weight: torch.Tensor, place: Placement) -> torch.Tensor:
    """The weight as its format makes it, with scales chosen as quickly as at run time."""
    images = _layer(place).window is not None
    rows = convolution_rows(weight) if images else weight
    values = encode(rows, place.weights, chooser=place.weights.dynamic_chooser).decode()
    return from_convolution_rows(values, tuple(weight.shape[2:])) if images else values


def _rounded_tables(tables: dict[str, Placement]) -> dict[str, torch.Tensor]:
    found = ((name, place, place.found) for name, place in tables.items())
    return {
        name: encode(table.weight, place.weights).decode() for name, place, table in found if isinstance(table, Table)
    }


def _student(graph: Graph, places: list[Placement], names: list[str]) -> Graph:
    """The float graph with weights as further inputs, and activations quantised where the scheme says so."""
    found = {_layer(place).node.id: place for place in places}
    emitters: list[Emitter] = []
    made: dict[str, Ref] = {}

    def visit(node: Node, builder: Builder) -> Ref | tuple[Ref, ...] | None:
        if node.op == "constant" and str(node.args[1]) in names:
            name = str(node.args[1])
            made[name] = builder.input(f"trained.{names.index(name)}", node.type)
            return made[name]
        if node.id not in found or found[node.id].activations is None:
            return None
        if not emitters:
            emitters.append(Emitter(graph, builder))
        place, source = found[node.id], builder.map(node.args[0])
        assert isinstance(source, Ref)
        kind = builder.value_type(source)
        assert isinstance(kind, TensorType)
        fixed = builder.add("aten.detach.default", source, outputs=kind)
        rounded = emitters[0].quantised(fixed, place.activations, node, image=_layer(place).window is not None)
        change = builder.add("aten.sub.Tensor", rounded, fixed, outputs=kind)
        source = builder.add("aten.add.Tensor", source, change, outputs=kind)
        rest = tuple(builder.map(argument) for argument in node.args[1:])
        kwargs = {name: builder.map(value) for name, value in node.kwargs}
        return builder.add(node.op, source, *rest, outputs=node.outputs, kwargs=kwargs, module_path=node.module_path)

    student = rewrite(graph, visit)
    order = {str(student.nodes[index].args[0]): index for index in student.inputs}
    given = [str(graph.nodes[index].args[0]) for index in graph.inputs]
    trained = [str(student.nodes[made[name].node].args[0]) for name in names]
    return dataclasses.replace(student, inputs=tuple(order[name] for name in (*given, *trained)))


def _with_weights(graph: Graph, weights: dict[str, torch.Tensor]) -> Graph:
    """The graph with other constants of those names."""

    def visit(node: Node, builder: Builder) -> Ref | None:
        weight = weights.get(str(node.args[1])) if node.op == "constant" else None
        return None if weight is None else builder.constant(weight, str(node.args[1]))

    return rewrite(graph, visit)
