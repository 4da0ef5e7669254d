"""`taut formats`: number formats and quantisation schemes, and what each one is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taut.cli._json import check_json, write_json
from taut.errors import ArgumentError

if TYPE_CHECKING:
    from rich.console import Console

    from taut.numerics import Format, Scheme

_EXAMPLE = (1024, 1024)


def formats(
    name: Annotated[str | None, typer.Argument(help="Explain this scheme or format.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write them as JSON to this new file; - for standard output.")
    ] = None,
) -> None:
    """List quantisation schemes and number formats with their bits a weight, or explain one."""
    if json is not None:
        check_json(str(json))
    from taut.cli._terminal import results
    from taut.kernels import active_isa
    from taut.numerics import FORMATS, SCHEMES

    console = results(stdout=str(json) != "-")
    if name is None:
        document: dict[str, Any] = {
            "isa": active_isa(),
            "schemes": [describe_scheme(scheme) for scheme in SCHEMES.values()],
            "formats": [describe_format(one) for one in FORMATS.values()],
        }
        _show_all(document, console)
    else:
        document = _find(name) | {"isa": active_isa()}
        _show_one(document, console)
    if json is not None:
        write_json(document, str(json))


def describe_scheme(scheme: Scheme) -> dict[str, Any]:
    """A scheme as JSON: its formats, its bits a weight, and the kinds of layers that run on integer kernels."""
    from taut.transform import kernel_kinds

    return {
        "name": scheme.name,
        "title": scheme.title,
        "bits_per_weight": scheme.weights.nominal_bits,
        "weights": scheme.weights.name,
        "activations": None if scheme.activations is None else scheme.activations.name,
        "kernels": list(kernel_kinds(scheme)),
    }


def describe_format(one: Format) -> dict[str, Any]:
    """A format as JSON."""
    return {
        "name": one.name,
        "title": one.title,
        "bits_per_weight": one.nominal_bits,
        "elements": _elements(one),
        "vector": one.vector,
        "scales": None if one.scales is None else {"kind": one.scales.kind, "bits": one.scales.bits},
        "coarse_scale": None if one.coarse is None else {"per": one.coarse.per, "bits": one.coarse.bits},
        "offset": one.offset,
        "chooser": one.chooser,
        "example": {"shape": list(_EXAMPLE), "bytes": one.nbytes(_EXAMPLE), "bits": one.bits_per_element(_EXAMPLE)},
    }


def _elements(one: Format) -> str:
    from taut.numerics import IntegerElements

    grid = one.elements
    if isinstance(grid, IntegerElements):
        scale = f" / {2**grid.fraction_bits}" if grid.fraction_bits else ""
        return f"integers {grid.low} to {grid.high}{scale} in {grid.bits} bits"
    return f"floats {grid.name.upper()} up to {grid.highest:g} in {grid.bits} bits"


def _find(name: str) -> dict[str, Any]:
    from taut.numerics import get_scheme

    try:
        scheme = get_scheme(name)
    except ArgumentError as error:
        raise ArgumentError("NAME", name, expected=error.expected or "a scheme or a format", fix=error.fix) from error
    weights = describe_format(scheme.weights)
    activations = None if scheme.activations is None else describe_format(scheme.activations)
    return {"scheme": describe_scheme(scheme), "weights": weights, "activations": activations}


def _show_all(document: dict[str, Any], console: Console) -> None:
    from rich.table import Table

    schemes = Table(title="Schemes: what taut quantize --format takes", title_justify="left")
    for column in ("scheme", "weights", "activations"):
        schemes.add_column(column)
    schemes.add_column("bits", justify="right")
    schemes.add_column("integer kernels")
    for one in document["schemes"]:
        kernels = ", ".join(one["kernels"]) or "none: emulated"
        bits = f"{one['bits_per_weight']:.4g}"
        schemes.add_row(one["name"], one["weights"], one["activations"] or "float32", bits, kernels)
    console.print(schemes)
    table = Table(title="Formats: each is a scheme for weights alone", title_justify="left")
    table.add_column("format")
    table.add_column("bits", justify="right")
    table.add_column("what it is", overflow="fold")
    for one in document["formats"]:
        table.add_row(one["name"], f"{one['bits_per_weight']:.4g}", one["title"])
    console.print(table)
    console.print(
        f"Bits are those of a weight with the scales of its vector; {document['isa']} kernels run on this host. Where "
        "no kernel serves, the weight is stored in its format and computed in float32: the size is real, the speed is "
        "not. taut formats NAME explains one, also others than these, such as vsq-w5a8-v32-s6.",
        soft_wrap=True,
    )


def _show_one(document: dict[str, Any], console: Console) -> None:
    scheme, weights = document["scheme"], document["weights"]
    lines = [f"{scheme['name']}: {scheme['title']}", *_format_lines("weights", weights)]
    activations = document["activations"]
    if activations is not None:
        lines += _format_lines("activations", activations, example=False)
    else:
        lines.append("activations: floating point")
    if scheme["kernels"]:
        kinds = " and ".join(f"{kind} layers" for kind in scheme["kernels"])
        lines.append(f"runs: {kinds} on integer kernels ({document['isa']} on this host); others emulated in float32")
    else:
        lines.append("runs: emulated, as no kernel serves it: stored in this format, computed in float32")
    lines.append(f"use: taut quantize MODEL --format {scheme['name']}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _format_lines(role: str, one: dict[str, Any], *, example: bool = True) -> list[str]:
    vector, scales, coarse, shown = one["vector"], one["scales"], one["coarse_scale"], one["example"]
    lines = [f"{role}: {one['name']}, {one['bits_per_weight']:.6g} bits", f"  elements: {one['elements']}"]
    if scales is not None:
        lines.append(f"  scales: {scales['kind']}, {scales['bits']} bits for each vector of {vector}")
    if coarse is not None:
        lines.append(f"  coarse scale: float{coarse['bits']}, one a {coarse['per']}")
    if one["offset"] != "none":
        lines.append(f"  offset: {one['offset'].replace('_', ' ')}")
    if example:
        rows, columns = shown["shape"]
        lines.append(f"  scales chosen by: {one['chooser']}")
        lines.append(f"  a weight of {rows} x {columns}: {shown['bytes']:,} bytes, {shown['bits']:.6g} bits a weight")
    return lines
