"""The artefact: a folder that runs without the model's Python source."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from taut._files import check_new_folder, write_folder
from taut.compile import is_program
from taut.errors import ArtefactError, TamperedError, TruncatedError, VersionError
from taut.graph import Graph, load_graph, save_graph
from taut.optimize._encoded import check_encoded
from taut.optimize._recipe import Recipe, parse_recipe
from taut.optimize._report import Report, render_report

BUNDLE_VERSION = 1
_MANIFEST = "manifest.json"
_FILES = ("recipe.yaml", "graph.json", "model.safetensors", "report.json", "report.html")
_LARGEST_MANIFEST = 2**20


def check_destination(path: Path, *, force: bool) -> None:
    """Refuse, before any work, a destination that cannot or may not be written.

    Raises:
        ArgumentError: it exists and `force` is False, or it is no bundle that could be replaced.
        StorageError: its folder is missing or not writable.
    """
    check_new_folder(path, force=force, marker=_MANIFEST, what="taut bundle")


def free_destination(name: str, folder: Path | None = None) -> Path:
    """`name.taut` in the folder (default: the current one), numbered if that exists already."""
    base = (folder or Path()) / f"{name}.taut"
    candidate, number = base, 2
    while candidate.exists() or candidate.is_symlink():
        candidate = base.with_name(f"{name}-{number}.taut")
        number += 1
    return candidate


def write_bundle(path: Path, graph: Graph, recipe: Recipe, report: Report, *, force: bool = False) -> Path:
    """Write a bundle whole or not at all.

    Args:
        path: the folder to make.
        graph: the optimised graph.
        recipe: what made it.
        report: what was measured.
        force: replace a bundle that is there already.

    Raises:
        StorageError: the disk is full or not writable; nothing is left behind.
    """
    check_destination(path, force=force)

    def write(folder: Path) -> None:
        save_graph(graph, folder / "graph.json", folder / "model.safetensors")
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
        (folder / "report.html").write_text(render_report(report), encoding="utf-8")
        manifest = {
            "format_version": BUNDLE_VERSION,
            "taut_version": report.taut_version,
            "files": {
                name: {"bytes": (folder / name).stat().st_size, "sha256": _digest(folder / name)} for name in _FILES
            },
        }
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    write_folder(path, write)
    return path


def read_bundle(path: Path) -> tuple[Graph, Recipe, Report]:
    """Read and verify a bundle from anywhere.

    Raises:
        ArtefactError: it is no bundle; `TruncatedError`, `TamperedError` and `VersionError` say more.
    """
    verify_bundle(path)
    graph = load_graph(path / "graph.json", path / "model.safetensors")
    check_encoded(graph, str(path / "graph.json"))
    recipe = parse_recipe((path / "recipe.yaml").read_text(encoding="utf-8"), str(path / "recipe.yaml"))
    return graph, recipe, read_report(path, verified=True)


def read_report(path: Path, *, verified: bool = False) -> Report:
    """Read the report of a bundle."""
    if not verified:
        verify_bundle(path)
    return Report.from_json((path / "report.json").read_bytes())


def verify_bundle(path: Path) -> None:
    """Check version, completeness and content of a bundle against its manifest."""
    manifest = _read_manifest(path)
    for name in _FILES:
        expected, digest = manifest[name]
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise TruncatedError(f"{path}: {name} is missing", fix=_FIX)
        size = file.stat().st_size
        if size < expected:
            raise TruncatedError(f"{path}: {name} has {size} bytes", expected=f"{expected} bytes", fix=_FIX)
        if size > expected or _digest(file) != digest:
            raise TamperedError(f"{path}: {name} does not match the manifest", fix=_FIX)


_FIX = "take the bundle from its source again, or run `taut optimize` again"


def _read_manifest(path: Path) -> dict[str, tuple[int, str]]:
    """Bytes and hash of each file."""
    file = path / _MANIFEST
    if not path.is_dir():
        raise ArtefactError(f"{path}: no such bundle", expected="a folder written by taut optimize")
    if not file.is_file():
        compiled = "load it with taut.compile.load, or look at it with taut inspect" if is_program(path) else None
        raise ArtefactError(f"{path}: has no {_MANIFEST}", expected="a folder written by taut optimize", fix=compiled)
    if file.stat().st_size > _LARGEST_MANIFEST:
        raise ArtefactError(f"{file}: larger than {_LARGEST_MANIFEST} bytes", fix=_FIX)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["format_version"]
        if not isinstance(version, int):
            raise TypeError("format_version is no integer")
        if version > BUNDLE_VERSION:
            raise VersionError(
                f"{path}: bundle format {version}, written by taut {str(content.get('taut_version'))[:40]}",
                expected=f"format {BUNDLE_VERSION} or older",
                fix="upgrade taut",
            )
        entries = {name: (content["files"][name]["bytes"], content["files"][name]["sha256"]) for name in _FILES}
        for name, (size, digest) in entries.items():
            if not isinstance(size, int) or not isinstance(digest, str):
                raise TypeError(f"{name}: wrong type")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TamperedError(f"{file}: not a manifest ({error})", fix=_FIX) from error
    return entries


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
