"""The artefact: whole or not at all, verified before it is believed."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from report_sample import sample_report

from taut.errors import (
    ArgumentError,
    ArtefactError,
    GuardError,
    StorageError,
    TamperedError,
    TautError,
    TruncatedError,
    VersionError,
)
from taut.graph import capture
from taut.optimize import Recipe, Session, free_destination, load, read_recipe, read_report
from taut.optimize import _bundle as bundles

FILES = ("graph.json", "manifest.json", "model.safetensors", "recipe.yaml", "report.html", "report.json")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()


@pytest.fixture(scope="module")
def original(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = capture(network, (torch.randn(8, 6),), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},))
    path = tmp_path_factory.mktemp("bundle") / "small.taut"
    return bundles.write_bundle(path, graph, Recipe(threads=1), sample_report())


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy.taut"))


def test_a_bundle_holds_no_pickle_and_runs_without_the_source(network: torch.nn.Module, bundle: Path) -> None:
    assert tuple(sorted(path.name for path in bundle.iterdir())) == FILES
    session = load(bundle)
    assert isinstance(session, Session)
    inputs = torch.randn(5, 6)
    assert torch.allclose(session(inputs), network(inputs), atol=1e-6)
    with pytest.raises(GuardError):
        session(torch.randn(5, 7))
    with pytest.raises(GuardError):
        session(torch.randn(65, 6))


def test_a_session_restores_the_thread_count(bundle: Path) -> None:
    before = torch.get_num_threads()
    load(bundle)(torch.randn(5, 6))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_cut_short(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    for length in (0, len(content) // 2, len(content) - 1):
        (bundle / name).write_bytes(content[:length])
        with pytest.raises(ArtefactError):
            load(bundle)
    (bundle / name).unlink()
    with pytest.raises(ArtefactError):
        load(bundle)


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
def test_a_file_that_was_tampered_with(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(TamperedError, match=name):
        load(bundle)


def test_a_file_that_grew_or_became_a_link(bundle: Path, tmp_path: Path) -> None:
    with (bundle / "graph.json").open("a") as file:
        file.write(" ")
    with pytest.raises(TamperedError):
        load(bundle)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(bundle / "graph.json", elsewhere)
    (bundle / "graph.json").symlink_to(elsewhere)
    with pytest.raises(TruncatedError):
        load(bundle)


def test_a_bundle_from_a_newer_version_says_so(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["format_version"] = 99
    manifest["taut_version"] = "9.9"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(VersionError, match=r"9\.9"):
        load(bundle)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format_version": "1"}', '{"format_version": 1, "files": []}', "[" * 100_000]
)
def test_a_manifest_that_is_none(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(TamperedError):
        load(bundle)


def test_a_rewritten_manifest_does_not_smuggle_in_other_operators(bundle: Path) -> None:
    """A forger can recompute the hashes, so the graph itself is checked as well."""
    text = (bundle / "graph.json").read_text().replace("aten.relu.default", "aten.from_file.default")
    (bundle / "graph.json").write_text(text)
    manifest = json.loads((bundle / "manifest.json").read_text())
    file = bundle / "graph.json"
    manifest["files"]["graph.json"] = {"bytes": file.stat().st_size, "sha256": bundles._digest(file)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TautError, match="from_file"):
        load(bundle)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "none", tmp_path, tmp_path / "file"):
        with pytest.raises(ArtefactError):
            load(path)


def test_nothing_is_overwritten_without_being_asked(bundle: Path, tmp_path: Path) -> None:
    graph, recipe, report = bundles.read_bundle(bundle)
    with pytest.raises(ArgumentError, match="--force"):
        bundles.write_bundle(bundle, graph, recipe, report)
    bundles.write_bundle(bundle, graph, Recipe(threads=2), report, force=True)
    assert load(bundle).recipe.threads == 2
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(ArgumentError, match="bundle to replace"):
        bundles.write_bundle(precious, graph, recipe, report, force=True)
    assert (precious / "thesis.txt").read_text() == "years of work"
    with pytest.raises(StorageError, match="no such folder"):
        bundles.write_bundle(tmp_path / "no" / "folder.taut", graph, recipe, report)


def test_a_full_disk_leaves_nothing_behind(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, recipe, report = bundles.read_bundle(bundle)

    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundles, "render_report", full)
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(StorageError, match="No space left"):
        bundles.write_bundle(folder / "x.taut", graph, recipe, report)
    assert list(folder.iterdir()) == []
    with pytest.raises(StorageError):
        bundles.write_bundle(bundle, graph, recipe, report, force=True)
    assert load(bundle).recipe.threads == recipe.threads


def test_destinations_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "m.taut").mkdir()
    assert free_destination("m", tmp_path).name == "m-2.taut"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("steps: [{pass: int8_linear, options: {}}]\nthreads: 2\n", None),
        ("steps: [{pass: int8_linear, options: {minimum_features: 8, skip: [head]}}]\n", None),
        ("steps: [{pass: int8_linear, options: {skip: [[head]]}}]\n", ArtefactError),
        ("version: 9\n", VersionError),
        ("threads: 0\n", ArtefactError),
        ("threads: many\n", ArtefactError),
        ("surprise: 1\n", ArtefactError),
        ("- 1\n", ArtefactError),
        ("a: &x [1]\nb: *x\n", ArtefactError),
        ("a: [\n", ArtefactError),
        ("steps: [{pass: x, options: {y: !!python/object/apply:os.system [ls]}}]\n", ArtefactError),
    ],
)
def test_recipes(tmp_path: Path, text: str, kind: type[TautError] | None) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    if kind is None:
        recipe = read_recipe(path)
        assert [name for name, _ in recipe.passes] == ["int8_linear"]
        assert Recipe.model_validate(recipe.model_dump(by_alias=True)) == recipe
    else:
        with pytest.raises(kind):
            read_recipe(path)


def test_the_report_can_be_read_alone(bundle: Path) -> None:
    assert read_report(bundle) == sample_report()
