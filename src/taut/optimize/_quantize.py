"""Direct quantisation: the schemes that the user names, scored, measured and written like any other result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from taut.errors import ArgumentError, QualityError, TransformError
from taut.graph import Graph
from taut.numerics import get_scheme
from taut.optimize._bundle import check_destination
from taut.optimize._calibration import (
    check_steps,
    load_calibration,
    prepare_and_quantise,
    sensitivity_data,
    shared_batches,
    uncalibrated,
)
from taut.optimize._mixing import FLOAT, check_limits, mix, pairs
from taut.optimize._planner import Steps, stored_bytes
from taut.optimize._prepare import load, prepare, restored
from taut.optimize._quality import Limit
from taut.optimize._search import Search
from taut.optimize._settings import Progress, Settings
from taut.optimize._work import Result, run
from taut.transform import PASSES, apply_recipe

DEFAULT_SCHEME = "vsq-w4a8-v16"
MIXED_SCHEMES = ("vsq-w3a8-v16", "vsq-w4a8-v16", "poc-w8a8")


def quantize(
    model: torch.nn.Module | torch.export.ExportedProgram | str,
    example_inputs: tuple[Any, ...] | torch.Tensor | None = None,
    *,
    format: str | Sequence[str] = (),  # noqa: A002 - what the command line calls it
    layers: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    max_bits: float | None = None,
    max_bytes: int | str | None = None,
    calibration: str | Mapping[str, Any] | None = None,
    fine_tune: int = 0,
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
        calibration: inputs, in the forms of `data`, by which weights are rounded and inputs equalised before they are
            quantised; other samples than those of `data`. With `max_bits` or `max_bytes` they also tell how sensitive
            each layer is.
        fine_tune: steps of training on the calibration data, after that.
        data: the user's samples; without `calibration` they tell how sensitive each layer is.
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
    limits = check_limits(max_bits, max_bytes)
    names = _check_schemes((format,) if isinstance(format, str) else tuple(format), limits is not None)
    overrides = dict(layers or {})
    for path, scheme in overrides.items():
        _check_scheme("--layer", scheme, f"{path}={scheme}")
    tell = progress or (lambda _doing, _share: None)
    if limits is not None and data is None and calibration is None:
        raise ArgumentError(
            "--data",
            None,
            expected=f"data, on which {limits[0]} measures how sensitive each layer is",
            fix="give samples like those that the model will see, or others with --calibrate",
        )
    check_steps(fine_tune, calibration)
    loaded = load(model, example_inputs, dynamic_shapes)
    with restored(loaded.module):
        prepared = prepare(loaded, settings, data=data, metric=metric, progress=tell)
        _check_finite(prepared.graph)
        first = _folding(prepared.graph)
        graph, _ = apply_recipe(prepared.graph, first)
        warnings = list(prepared.warnings)
        samples = None if calibration is None else load_calibration(calibration, prepared)
        shared = None if samples is None else shared_batches(samples, prepared.dataset)
        options = {"scheme": names[0], "layers": pairs(overrides), "skip": list(skip)}
        PASSES["quantise"].applies(graph, **options)
        errors: Mapping[str, float] = {}
        if limits is not None:
            measured_on, notes = sensitivity_data(samples, prepared.dataset)
            mixed, errors = mix(graph, measured_on, names, overrides, skip, limits, tell)
            options |= {"scheme": FLOAT, "layers": [*mixed, *pairs(overrides)]}
            warnings += notes
        note = shared if samples is not None else uncalibrated(graph, options)
        warnings += [note] if note else []
        prepared = dataclasses.replace(prepared, warnings=tuple(warnings))

        def work(search: Search) -> None:
            search.layer_errors = errors
            if samples is None:
                search.replay((*first, ("quantise", options)), None)
            else:
                search.begin()
                with search.off_the_clock():
                    prepare_and_quantise(search, first, options, samples, fine_tune)
                search.finish(None)
            _accept(search, " + ".join(names), calibrated=samples is not None)

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


def _accept(search: Search, scheme: str, *, calibrated: bool) -> None:
    """Refuse a result that loses too much."""
    final = search.final_quality
    if final is not None and not final.within_limit:
        prepare = "" if calibrated else "prepare the weights with --calibrate, "
        raise QualityError(
            f"{scheme}: {search.judge.explain(final)}",
            fix=f"{prepare}choose another --format, spare layers with --skip or --layer, "
            "spread the bits by sensitivity with --max-bits, or allow the loss with --max-drop",
        )
    if not search.proven:
        before = stored_bytes(search.base)
        raise QualityError(f"{scheme}: stores no fewer bytes than the {before:,} of the unmodified model")
