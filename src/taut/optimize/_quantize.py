"""Direct quantisation: the schemes that the user names, scored, measured and written like any other result."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from taut.errors import ArgumentError, EmptyChangeError, QualityError, TransformError
from taut.graph import Graph
from taut.numerics import get_scheme
from taut.optimize._bundle import check_destination
from taut.optimize._data import spread
from taut.optimize._planner import Steps, stored_bytes
from taut.optimize._prepare import Prepared, load, prepare, restored
from taut.optimize._quality import Limit
from taut.optimize._search import Search
from taut.optimize._settings import Progress, Settings
from taut.optimize._work import Result, run
from taut.transform import PASSES, apply_recipe, assign, measure_sensitivity

DEFAULT_SCHEME = "vsq-w4a8-v16"
MIXED_SCHEMES = ("vsq-w3a8-v16", "vsq-w4a8-v16", "poc-w8a8")
FLOAT = "float32"
_SENSITIVITY_BATCHES = 8
_SAME_DATA = (
    "The schemes of the layers were chosen by what the outputs lose on some of the samples that quality is scored on; "
    "their labels were not used."
)
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def quantize(
    model: torch.nn.Module | torch.export.ExportedProgram | str,
    example_inputs: tuple[Any, ...] | torch.Tensor | None = None,
    *,
    format: str | Sequence[str] = (),  # noqa: A002 - what the command line calls it
    layers: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    max_bits: float | None = None,
    max_bytes: int | str | None = None,
    data: str | Mapping[str, Any] | None = None,
    metric: str | Callable[..., float] | None = None,
    dynamic_shapes: Any = None,
    max_drop: str | float = "1%",
    budget: float = 60.0,
    out: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Quantise a model in the named scheme, and measure what that costs and what it saves.

    Args:
        model: as for `taut.optimize`, like `example_inputs`, `data`, `metric`, `dynamic_shapes`, `max_drop`, `out`,
            `force` and `progress`.
        example_inputs: one call's positional inputs.
        format: a scheme as `taut formats` lists them, by default "vsq-w4a8-v16"; with `max_bits` or `max_bytes` those
            to choose from, layer by layer.
        layers: another scheme for the layers at or below a module path; "float32" leaves them.
        skip: module paths whose layers stay as they are, with all below them.
        max_bits: stored bits a weight that the layers may take on average.
        max_bytes: what all parameters and buffers may take: a number, or a text such as "12.5MB".
        data: the user's samples; with `max_bits` or `max_bytes` they also tell how sensitive each layer is.
        metric: how outputs are scored.
        dynamic_shapes: as `torch.export.export` takes it.
        max_drop: quality that may be lost.
        budget: seconds for measuring sensitivity, quality and time.
        out: write the bundle there.
        force: replace a bundle that is there already.
        progress: called with what is being done and the share of the budget spent.

    Returns:
        The result, whose report lists every layer.

    Raises:
        QualityError: more is lost than `max_drop`; nothing is written.
        TautError: as for `taut.optimize`.
    """
    destination = None if out is None else Path(out)
    if destination is not None:
        check_destination(destination, force=force)
    settings = Settings("size", Limit.parse(max_drop), float(budget), job="quantize", scoring_share=0.25)
    limits = _check_limits(max_bits, max_bytes)
    names = _check_schemes((format,) if isinstance(format, str) else tuple(format), limits is not None)
    overrides = dict(layers or {})
    for path, scheme in overrides.items():
        _check_scheme("--layer", scheme, f"{path}={scheme}")
    tell = progress or (lambda _doing, _share: None)
    if limits is not None and data is None:
        raise ArgumentError(
            "--data",
            None,
            expected=f"data, on which {limits[0]} measures how sensitive each layer is",
            fix="give samples like those that the model will see",
        )
    loaded = load(model, example_inputs, dynamic_shapes)
    with restored(loaded.module):
        prepared = prepare(loaded, settings, data=data, metric=metric, progress=tell)
        _check_finite(prepared.graph)
        first = _folding(prepared.graph)
        graph, _ = apply_recipe(prepared.graph, first)
        options: dict[str, Any] = {"skip": list(skip)}
        PASSES["quantise"].applies(graph, scheme=names[0], layers=_pairs(overrides), **options)
        errors: Mapping[str, float] = {}
        if limits is None:
            chosen = {"scheme": names[0], "layers": _pairs(overrides)}
        else:
            mixed, errors = _mix(prepared, graph, names, overrides, skip, limits, tell)
            chosen = {"scheme": FLOAT, "layers": [*mixed, *_pairs(overrides)]}
            prepared = dataclasses.replace(prepared, warnings=(*prepared.warnings, _SAME_DATA))
        steps: Steps = (*first, ("quantise", {**chosen, **options}))

        def work(search: Search) -> None:
            search.layer_errors = errors
            search.replay(steps, None)
            _accept(search, " + ".join(names))

        return run(prepared, work, destination, force=force, progress=tell)


def _check_finite(graph: Graph) -> None:
    """Refuse a model whose weights hold NaN or infinity before its outputs, which would as well, hide the cause."""
    for node in graph.nodes:
        weight = graph.constants[str(node.args[0])] if node.op == "constant" else None
        if weight is not None and weight.is_floating_point() and weight.dim() > 1 and not torch.isfinite(weight).all():
            raise TransformError(
                f"the weight {node.args[1]} holds NaN or infinity", expected="finite values", fix="check the checkpoint"
            )


def _folding(graph: Graph) -> Steps:
    """The passes that make fewer weights of the same function, before any is rounded."""
    return tuple((name, {}) for name in ("fold_batch_norm",) if PASSES[name].applies(graph))


def _pairs(layers: Mapping[str, str]) -> list[str]:
    return [f"{path}={scheme}" for path, scheme in layers.items()]


def _check_scheme(argument: str, scheme: str, given: str) -> None:
    """Refuse a scheme that nobody knows, with the closest match."""
    if scheme == FLOAT:
        return
    try:
        get_scheme(scheme)
    except ArgumentError as error:
        raise ArgumentError(argument, given, expected=error.expected or "a scheme", fix=error.fix) from error


def _check_schemes(names: tuple[str, ...], mixed: bool) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for name in names if name))
    for name in names:
        _check_scheme("--format", name, name)
    if FLOAT in names:
        raise ArgumentError("--format", FLOAT, expected="a scheme that quantises", fix="see taut formats")
    if not mixed and len(names) > 1:
        raise ArgumentError(
            "--format",
            ", ".join(names),
            expected="one scheme",
            fix="add --max-bits or --max-bytes to mix them, or --layer PATH=SCHEME for some layers",
        )
    return names or (MIXED_SCHEMES if mixed else (DEFAULT_SCHEME,))


def _check_limits(max_bits: float | None, max_bytes: int | str | None) -> tuple[str, float] | None:
    """Which limit the user gave, and its value."""
    if max_bits is not None and max_bytes is not None:
        raise ArgumentError("--max-bytes", max_bytes, expected="one of --max-bits and --max-bytes")
    if max_bits is not None:
        if not 1 <= max_bits <= 32:
            raise ArgumentError("--max-bits", max_bits, expected="bits a weight between 1 and 32")
        return "--max-bits", float(max_bits)
    return None if max_bytes is None else ("--max-bytes", parse_bytes(max_bytes))


def parse_bytes(text: int | str) -> int:
    """Read a number of bytes: 1500000, "1.5MB", "1.5 MiB".

    Raises:
        ArgumentError: it is none, or not positive.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z]{0,3})\s*", str(text))
    if match is None or match[2].lower() not in _UNITS or float(match[1]) <= 0:
        raise ArgumentError("--max-bytes", text, expected='a number of bytes, such as 1500000, "1.5MB" or "1.5MiB"')
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _mix(
    prepared: Prepared,
    graph: Graph,
    names: tuple[str, ...],
    overrides: Mapping[str, str],
    skip: Sequence[str],
    limits: tuple[str, float],
    progress: Progress,
) -> tuple[list[str], dict[str, float]]:
    """The best scheme for each layer under the limit, and the measured error of each."""
    batches = [prepared.dataset.batches[index] for index in spread(prepared.dataset.batches, _SENSITIVITY_BATCHES)]
    table = measure_sensitivity(
        graph,
        batches,
        names,
        skip=[*skip, *overrides],
        progress=lambda doing, share: progress(f"measuring sensitivity: {doing}", share),
    )
    name, limit = limits
    floats = {entry.layer: entry.bytes for entry in table.entries if entry.scheme == FLOAT}
    weights = sum(floats.values())
    # What is not mixed takes what its own scheme gives it, not what the table counts for it.
    spared = stored_bytes(graph) - stored_bytes(_overridden(graph, overrides, skip))
    rest = table.rest_bytes - spared
    budget = (limit if name == "--max-bytes" else rest + weights * limit / 32) + spared
    try:
        assignment = assign(table, budget=budget)
    except ArgumentError as error:
        least = rest + sum(min(e.bytes for e in table.entries if e.layer == layer) for layer in floats)
        shown = f"{least:,} bytes" if name == "--max-bytes" else f"{32 * (least - rest) / weights:.3f} bits"
        raise ArgumentError(
            name,
            int(limit) if name == "--max-bytes" else limit,
            expected=f"at least {shown}, which {names[0] if len(names) == 1 else 'the smallest of the schemes'} gives",
            fix="allow more, or add a smaller scheme with --format",
        ) from error
    errors = {e.layer: e.error for e in table.entries if assignment.schemes.get(e.layer) == e.scheme}
    return assignment.layers, errors


def _overridden(graph: Graph, overrides: Mapping[str, str], skip: Sequence[str]) -> Graph:
    """The graph with the layers quantised that the user named; the others in float32."""
    try:
        return PASSES["quantise"].apply(graph, scheme=FLOAT, layers=_pairs(overrides), skip=list(skip)).graph
    except EmptyChangeError:
        return graph


def _accept(search: Search, scheme: str) -> None:
    """Refuse a result that loses too much."""
    final = search.final_quality
    if final is not None and not final.within_limit:
        raise QualityError(
            f"{scheme}: {search.judge.explain(final)}",
            fix="choose another --format, spare layers with --skip or --layer, spread the bits by sensitivity with "
            "--max-bits, or allow the loss with --max-drop",
        )
    if not search.proven:
        before = stored_bytes(search.base)
        raise QualityError(f"{scheme}: stores no fewer bytes than the {before:,} of the unmodified model")
