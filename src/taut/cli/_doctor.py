"""`taut doctor`: what this host can do, and what is missing or in the way."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taut.cli._json import check_json, write_json
from taut.errors import StorageError

if TYPE_CHECKING:
    from rich.console import Console

_PURPOSES = {
    "demo": "the embedded example (taut optimize without MODEL)",
    "compile": "compiled programs (taut compile, and as a technique of taut optimize)",
    "bench": "benchmarks and the examples on real models",
    "docs": "building the documentation",
    "dev": "tests and checks of taut itself",
}
_CUDA = re.compile(r"(nvidia|cuda|cupy)[-_].*|triton|pytorch[-_]triton.*", re.IGNORECASE)
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?\s*([^;]*)(?:;(.*))?")


def doctor(
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure the peaks again.")] = False,
    json_path: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the findings as JSON; - is standard output.")
    ] = None,
) -> None:
    """Show what this host can do at best, what taut found installed, and what would spoil a measurement."""
    if json_path is not None:
        check_json(json_path)
    from taut.cli._terminal import progress_bar, results

    with progress_bar() as progress:
        progress("measuring the host", 0.0)
        findings = examine(refresh=refresh)
    show(findings, results(stdout=json_path != "-"))
    if json_path is not None:
        write_json(findings, json_path)


def examine(*, refresh: bool) -> dict[str, Any]:
    """Everything that the command reports, as plain JSON values."""
    import torch

    from taut.kernels import active_isa, available_isas
    from taut.stats import fingerprint, quietness

    host, quiet = fingerprint(), quietness()
    peaks, problem = _peaks(sorted({1, torch.get_num_threads()}), refresh=refresh)
    warnings = installation_warnings(_installed(), metadata.requires("taut") or [])
    warnings += [problem] if problem else []
    if torch.version.cuda:
        warnings.append(f"torch is a CUDA build ({torch.version.cuda}); taut measures CPUs, a CPU build is smaller")
    if not quiet.quiet:
        warnings.append("the machine is not quiet, measurements need more pairs: " + "; ".join(quiet.reasons))
    return {
        "host": host.to_dict(),
        "host_key": host.key,
        "versions": {name: _version(name) for name in ("taut", "torch", "numpy")}
        | {"python": platform.python_version()},
        "threads": torch.get_num_threads(),
        "isa": {"active": active_isa(), "available": list(available_isas())},
        "peaks": peaks,
        "extras": extras(metadata.requires("taut") or [], _installed()),
        "quiet": quiet.quiet,
        "warnings": warnings,
    }


def _peaks(counts: list[int], *, refresh: bool) -> tuple[list[dict[str, object]], str]:
    """The peaks at each thread count, or why they could not be kept."""
    from taut.cost import calibrate

    try:
        return [calibrate(threads=count, refresh=refresh).to_dict() for count in counts], ""
    except StorageError as error:
        return [], f"the peaks could not be kept: {error.message}; {error.fix}"


def _installed() -> dict[str, str]:
    """The version of every installed distribution by its normalised name."""
    found = ((item.metadata["Name"], item.version) for item in metadata.distributions())
    return {_normalise(name): version for name, version in found if name}


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installation_warnings(installed: dict[str, str], requirements: list[str]) -> list[str]:
    """What is wrong with the installed packages.

    Args:
        installed: version by normalised name.
        requirements: taut's own, as its metadata lists them.
    """
    found: list[str] = []
    cuda = sorted(name for name in installed if _CUDA.fullmatch(name))
    if cuda:
        shown = ", ".join(cuda[:4]) + (f" and {len(cuda) - 4} more" if len(cuda) > 4 else "")
        found.append(f"CUDA packages are installed ({shown}): reinstall torch with -c constraints.txt")
    for name, _, specifiers, extra in map(_parse, requirements):
        version = installed.get(name)
        if extra is not None or version is None:
            continue
        if not all(_satisfies(version, part) for part in specifiers.split(",") if part.strip()):
            found.append(f"{name} {version} is installed, taut needs {name}{specifiers}: use -c constraints.txt")
    return found


def extras(requirements: list[str], installed: dict[str, str]) -> list[dict[str, Any]]:
    """Each extra of taut: what it is for, and which of its packages are missing."""
    needs: dict[str, list[tuple[str, str]]] = {}
    for name, chosen, _, extra in map(_parse, requirements):
        if extra is not None:
            needs.setdefault(extra, []).append((name, chosen))

    def packages(extra: str, seen: frozenset[str]) -> set[str]:
        found: set[str] = set()
        for name, chosen in needs.get(extra, []):
            if name != "taut":
                found.add(name)
                continue
            others = {item.strip() for item in chosen.split(",")} - seen
            found.update(*(packages(other, seen | {other}) for other in others))
        return found

    return [
        {
            "name": extra,
            "purpose": _PURPOSES.get(extra, ""),
            "missing": sorted(packages(extra, frozenset({extra})) - set(installed)),
        }
        for extra in needs
    ]


def _parse(requirement: str) -> tuple[str, str, str, str | None]:
    """Name, its extras, version specifiers and the extra of taut that asks for it."""
    match = _REQUIREMENT.fullmatch(requirement.strip())
    assert match is not None, requirement  # written by our own build
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", match[4] or "")
    return _normalise(match[1]), match[2] or "", match[3].strip(" ()"), extra[1] if extra else None


def _satisfies(version: str, specifier: str) -> bool:
    """Whether a release satisfies one of the specifiers that taut's metadata uses."""
    match = re.fullmatch(r"\s*(>=|<=|==|<|>)\s*([0-9.]+)\s*", specifier)
    if match is None:
        return True
    given, bound = _release(version), _release(match[2])
    width = max(len(given), len(bound))
    given, bound = (parts + (0,) * (width - len(parts)) for parts in (given, bound))
    return {">=": given >= bound, "<=": given <= bound, "==": given == bound, "<": given < bound, ">": given > bound}[
        match[1]
    ]


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def show(findings: dict[str, Any], console: Console) -> None:
    """Print the findings in tables that fit 80 columns."""
    from rich.markup import escape
    from rich.table import Table

    host = findings["host"]
    about = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    versions = ", ".join(f"{name} {version}" for name, version in findings["versions"].items())
    rows = {
        "host": f"{host['cpu'] or 'unknown processor'} (key {findings['host_key']})",
        "versions": versions,
        "threads": str(findings["threads"]),
        "kernels": f"{findings['isa']['active']} (available: {', '.join(findings['isa']['available'])})",
        "quiet": "yes" if findings["quiet"] else "no",
    }
    for name, value in rows.items():
        about.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(about)
    if findings["peaks"]:
        console.print(_peak_table(findings["peaks"]))
    needs = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("extra", "for", "missing packages"):
        needs.add_column(title, overflow="fold")
    for extra in findings["extras"]:
        missing = ", ".join(extra["missing"])
        needs.add_row(extra["name"], extra["purpose"], escape(missing) if missing else "[green]none[/green]")
    console.print(needs)
    for warning in findings["warnings"]:
        console.print(f"[yellow]warning[/yellow] {escape(warning)}")
    if not findings["warnings"]:
        console.print("[green]nothing is in the way[/green]")


def _peak_table(peaks: list[dict[str, Any]]) -> Any:
    """One column a thread count."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("peak (measured)")
    for entry in peaks:
        table.add_column(f"{entry['threads']} thread" + ("s" if entry["threads"] > 1 else ""), justify="right")
    lines = [("flops", name, 1e9, f"{name} Gop/s") for name in peaks[0]["flops"]]
    lines += [("bandwidth", name, 1e9, f"{name.upper()} GB/s") for name in peaks[0]["bandwidth"]]
    lines += [("dispatch", name, 1e-6, f"call of an operator, {name}, us") for name in peaks[0]["dispatch"]]
    for group, name, unit, title in lines:
        table.add_row(title, *(_figure(entry[group][name] / unit) if name in entry[group] else "" for entry in peaks))
    for name in peaks[0]["rates"]:
        if name.split(".")[0] in ("linear", "convolution"):
            table.add_row(f"{name} sustained, Gop/s", *(_figure(entry["rates"][name][1] / 1e9) for entry in peaks))
    return table


def _figure(value: float) -> str:
    """Three figures, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
