"""`taut comm`: what the links of a job cost, and whether compressing its gradients will help."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taut._files import cache_directory, check_distinct, check_new, write_whole
from taut.cli._json import check_json, write_json
from taut.cli._text import one_line
from taut.errors import ArgumentError, StorageError

if TYPE_CHECKING:
    from taut.distributed import Advice, Change, Profile, SetUp, WhatIfs, Workload

comm = typer.Typer(
    help="Measure the links of a training job, and predict whether compression will help it.", no_args_is_help=True
)

_LINK = re.compile(r"(\d+(?:\.\d+)?)\s*(k|m|g|t)?(bit|bps|b)(?:/s|ps)?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", re.IGNORECASE)
_MOST_WORKERS = 1_000_000
_MOST_MEGABYTES = 2**20
_PATIENCE = 600.0  # seconds after which a host that was busy is probed again
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}

Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the figures as JSON to this file; - is standard output."),
]


@comm.command()
def probe(
    ranks: Annotated[
        int, typer.Option(min=2, help="Without torchrun: processes to start on this host, over loopback.")
    ] = 2,
    link: Annotated[
        str | None,
        typer.Option(help="Bandwidth of each rank's link, e.g. 10Gbit; by default measured."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The profile to write, a new file.")] = Path("communication.json"),
) -> None:
    """Measure collectives, encoders and what communication does to computing; on your hosts under torchrun."""
    bandwidth = None if link is None else link_bandwidth(link)
    rank = int(os.environ.get("RANK", "0")) if "WORLD_SIZE" in os.environ else 0
    if rank == 0:
        check_new(out, "--out")
    from taut.cli._terminal import progress_bar
    from taut.distributed import probe_group, probe_host

    if "WORLD_SIZE" not in os.environ:
        if bandwidth is not None:
            raise ArgumentError("--link", link, expected="torchrun: on one host there is no link to probe")
        with progress_bar() as progress:
            profile = probe_host(ranks, progress)
    else:
        import torch.distributed as dist

        dist.init_process_group("gloo")
        try:
            if rank == 0:
                with progress_bar() as progress:
                    profile = probe_group(progress, bandwidth=bandwidth)
            else:
                profile = probe_group(bandwidth=bandwidth)
        finally:
            dist.destroy_process_group()
    if profile is None:
        return
    profile.write(out)
    for line in profile.lines():
        typer.echo(one_line(line))
    typer.echo(one_line(f"profile: {out}"))


@comm.command()
def advise(
    model: Annotated[str | None, typer.Argument(help="path.py:factory, package.module:factory, or a .pt2 file")] = None,
    link: Annotated[
        str | None, typer.Option(help="Bandwidth of each rank's link, e.g. 10Gbit; by default the probed one.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Ranks, one a device; by default as probed.")] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Written by taut comm probe; by default this host is probed once, in a minute.")
    ] = None,
    backward: Annotated[
        str | None, typer.Option(help="Time of the backward pass on your device, e.g. 120ms; by default measured here.")
    ] = None,
    layers: Annotated[
        Path | None,
        typer.Option(help="In place of MODEL: a profile of its layers on a device that you do not have here."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="With --layers: the batch of each worker, one of the file's.")
    ] = None,
    encoder_speed: Annotated[
        float, typer.Option(help="Encoders are so many times as fast as probed, e.g. 20 on a GPU.")
    ] = 1.0,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an input, e.g. 32x3x224x224 or 8x128:int64; repeat it for each input."),
    ] = None,
    bucket: Annotated[float, typer.Option(help="bucket_cap_mb of DistributedDataParallel.")] = 25.0,
    compressor: Annotated[
        list[str] | None, typer.Option(help="Compare only these, by their names in the table; repeat it.")
    ] = None,
    study: Annotated[bool, typer.Option("--study", help="Without MODEL: count where compression pays.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="With --study: a recipe of your own.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with a chart to this new file.")] = None,
    json: Json = None,
) -> None:
    """Predict the step time with each compressor, and say which helps: often none does."""
    _check_outputs(html, json)
    if study:
        for name, value in (("MODEL", model), ("--layers", layers)):
            if value is not None:
                raise ArgumentError(name, str(value), expected="none beside --study")
        _show_study(recipe, json)
        return
    if recipe is not None:
        raise ArgumentError("--recipe", str(recipe), expected="--study beside it")
    if (model is None) == (layers is None):
        raise ArgumentError("MODEL", model, expected="a model, --layers in place of it, or --study")
    if batch is not None and layers is None:
        raise ArgumentError("--batch", batch, expected="--layers beside it; a model has the batch of its inputs")
    if shape and layers is not None:
        raise ArgumentError("--shape", shape, expected="a model beside it, not --layers")
    if not 2**-20 <= bucket <= _MOST_MEGABYTES:
        raise ArgumentError("--bucket", bucket, expected=f"megabytes above 0, at most {_MOST_MEGABYTES}")
    if workers is not None and not 1 <= workers <= _MOST_WORKERS:
        raise ArgumentError("--workers", workers, expected=f"a number from 1 to {_MOST_WORKERS}")
    if not 1e-3 <= encoder_speed <= 1e6:
        raise ArgumentError("--encoder-speed", encoder_speed, expected="a factor from 0.001 to 1000000")
    bandwidth = None if link is None else link_bandwidth(link)
    seconds = None if backward is None else duration(backward)
    from taut.cli._terminal import results
    from taut.distributed import Change, Cluster, explore
    from taut.distributed import advise as advise_job

    notes: list[str] = []
    workload = None if layers is None else _profiled_workload(layers, batch, notes)
    found = _profile(profile)
    for name in compressor or ():
        if name not in found.costs:
            raise ArgumentError("--compressor", name, expected=f"one of {', '.join(found.costs)}")
    bandwidth = bandwidth or found.bandwidth
    if bandwidth is None:
        raise ArgumentError("--link", None, expected="the bandwidth of your links, e.g. 10Gbit: loopback was probed")
    if workload is None:
        assert model is not None
        workload = _workload(model, shape or [])
    if layers is not None or encoder_speed != 1:
        notes.append(f"encoders: {encoder_speed:g} times as fast as on the probed host; software of links: as there")
    if seconds is not None:
        workload = workload.scaled(seconds)
    cluster = Cluster(workers or found.ranks, bandwidth, slowdown=found.slowdown)
    size = round(bucket * 2**20)
    change = Change(encoder=encoder_speed)
    advice = advise_job(workload, cluster, found, names=compressor, bucket_bytes=size, change=change)
    what_ifs = explore(workload, cluster, found, names=compressor, bucket_bytes=size, change=change)
    _show(advice, what_ifs, notes, results(stdout=json != "-"))
    if html is not None:
        _write_page(html, workload, advice, what_ifs, notes, found, size, change)
    if json is not None:
        write_json(advice.to_dict() | {"notes": notes, "what_if": what_ifs.to_dict()}, json)


def link_bandwidth(text: str) -> float:
    """Bytes per second of a link typed as e.g. 10Gbit.

    Raises:
        ArgumentError: it cannot be read, or is out of range.
    """
    match = _LINK.fullmatch(text.strip())
    # A capital B would be bytes, eight times as fast: too easily mistaken.
    bits = match is not None and (match[3].startswith("b") or match[3].lower() == "bit")
    value = float(match[1]) * _SCALES[(match[2] or "").lower()] / 8 if match and bits else 0.0
    if not 100 <= value <= 1e14:
        raise ArgumentError("--link", text, expected="bits per second, e.g. 100Mbit or 10Gbit")
    return value


def duration(text: str) -> float:
    """Seconds of a time typed as e.g. 120ms.

    Raises:
        ArgumentError: it cannot be read, or is 0.
    """
    match = _TIME.fullmatch(text.strip())
    value = float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2].lower()] if match else 0.0
    if not 0 < value < 1e6:
        raise ArgumentError("--backward", text, expected="a time above 0 with its unit, e.g. 120ms or 1.5s")
    return value


def _check_outputs(html: Path | None, json: str | None) -> None:
    if json is not None:
        check_json(json)
    if html is not None:
        check_new(html, "--html")
    check_distinct({"--html": html, "--json": Path(json) if json is not None and json != "-" else None})


def _profile(path: Path | None) -> Profile:
    """The user's profile, or the one of this host, probed once."""
    from taut.distributed import probe_host, read_profile
    from taut.errors import ArtefactError
    from taut.stats import fingerprint

    if path is not None:
        return read_profile(path)
    kept = cache_directory() / f"communication-{fingerprint().key}.json"
    if kept.exists():
        try:
            found = read_profile(kept)
            if not found.doubts or time.time() - kept.stat().st_mtime < _PATIENCE:
                return found
        except ArtefactError:
            typer.echo(one_line(f"{kept}: cannot be used; this host is probed again"), err=True)
    from taut.cli._terminal import progress_bar

    with progress_bar() as progress:
        found = probe_host(2, progress)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        found.write(kept)
    except (OSError, StorageError) as error:
        typer.echo(one_line(f"the profile of this host is not kept: {error}"), err=True)
    return found


def _workload(model: str, shapes: list[str]) -> Workload:
    import torch

    from taut.cli._inspect import example_inputs
    from taut.cli._terminal import progress_bar
    from taut.distributed import measure_workload
    from taut.optimize import load_model

    loaded = load_model(model)
    if not isinstance(loaded.module, torch.nn.Module):
        raise ArgumentError("MODEL", model, expected="a module that can be trained, not an exported program")
    inputs = example_inputs(loaded.example_inputs, shapes)
    with progress_bar() as progress:
        progress("timing the backward pass", 0.0)
        return measure_workload(loaded.name, loaded.module, inputs)


def _profiled_workload(path: Path, batch: int | None, notes: list[str]) -> Workload:
    """The training step of a profile of layers; says in the notes what it rests on."""
    from taut.distributed import read_layer_profiles

    found = read_layer_profiles(path)
    batches = list(dict.fromkeys(one.batch for one in found))
    if batch is None and len(batches) == 1:
        (batch,) = batches
    chosen = [one for one in found if one.batch == batch]
    if not chosen:
        raise ArgumentError("--batch", batch, expected=f"one of {', '.join(map(str, batches))}")
    if len(chosen) > 1:
        blocks = ", ".join(str(len(one.layers)) for one in chosen)
        raise ArgumentError(
            "--layers",
            str(path),
            expected=f"one block of batch {batch}; there are {len(chosen)}, of {blocks} layers",
            fix="copy the block that you mean to a file of its own",
        )
    profile, workload = chosen[0], chosen[0].workload()
    notes.append(
        f"computing: {len(profile.layers)} layers and {workload.elements / 1e6:.2f} M parameters of {path.name}, "
        "not measured here; without optimiser"
    )
    if not profile.split:
        notes.append(f"{path.name} has no times of the backward pass: two thirds of each layer are taken for it")
    return workload


def _show(advice: Advice, what_ifs: WhatIfs, notes: Sequence[str], console: object) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from taut.distributed import KEPT_NOTE, bandwidth_text, kept_text, link_text, milliseconds, ratio

    assert isinstance(console, Console)
    job = f"{advice.cluster.ranks} workers, {link_text(advice.cluster.bandwidth)}"
    title = f"{one_line(advice.workload)}, {job} (modelled)"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("compressor", no_wrap=True)
    for column in ("step, ms", "MB sent", "keeps", f"over {advice.baseline}", "verdict", "pays below"):
        table.add_column(column, justify="right")
    for one in advice.predictions:
        verdict = "baseline" if one.name == advice.baseline else one.verdict
        costs = (milliseconds(one.seconds), f"{one.sent / 1e6:.2f}", kept_text(one.name))
        gains = (ratio(one.speedup[advice.baseline]), verdict, bandwidth_text(one.crossover))
        table.add_row(*map(escape, (one.name, *costs, *gains)))
    console.print(table)
    console.print(escape(advice.answer))
    for line in (*what_ifs.lines(), *notes):
        console.print(escape(one_line(line)), soft_wrap=True)
    for doubt in advice.doubts:
        console.print(escape(one_line(f"the profile is doubtful: {doubt}; run taut comm probe when nothing else runs")))
    console.print(f"step times only: what keeps little of a gradient may need more steps; {KEPT_NOTE}", style="dim")


def _write_page(
    path: Path,
    workload: Workload,
    advice: Advice,
    what_ifs: WhatIfs,
    notes: Sequence[str],
    profile: Profile,
    bucket_bytes: int,
    change: Change,
) -> None:
    from taut.distributed import BANDWIDTHS, BASELINES, render_advice, sweep

    names = [*BASELINES, *(one.name for one in advice.predictions if one.name not in BASELINES)]
    bandwidths = [float(one) for one in BANDWIDTHS]
    lines = sweep(workload, advice.cluster, profile, names, bandwidths, bucket_bytes=bucket_bytes, change=change)
    page = render_advice(advice, bandwidths, lines, what_ifs, notes)
    write_whole(path, lambda file: file.write_text(page, encoding="utf-8"))


def _show_study(recipe: Path | None, json: str | None) -> None:
    from taut.distributed import link_text, run_study

    found = run_study(recipe) if recipe is not None else run_study()
    bandwidths = sorted({one.bandwidth for one in found}, reverse=True)
    rows = []
    for bandwidth in bandwidths:
        own = [one for one in found if one.bandwidth == bandwidth]
        rows.append(_count(bandwidth, own))
        winners = ", ".join(f"{name} {count}" for name, count in rows[-1]["winners"].items()) or "none"
        said = f"{link_text(bandwidth)}: compression pays in {rows[-1]['helps']} of {len(own)} set-ups ({winners})"
        typer.echo(one_line(said), err=json == "-")
    typer.echo("modelled, from the inputs of the recipe; against the faster of fp32 and fp16", err=json == "-")
    if json is not None:
        write_json({"kind": "modelled", "bandwidths": rows}, json)


def _count(bandwidth: float, own: list[SetUp]) -> dict[str, object]:
    winners = Counter(one.compressor for one in own if one.helps)
    return {
        "bandwidth_bytes_per_second": bandwidth,
        "set_ups": len(own),
        "helps": sum(winners.values()),
        "winners": dict(winners.most_common()),
    }
