"""The artefact: whole or not at all, verified before it is believed."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from pathlib import Path
from typing import Any

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
from taut.graph import Graph, TensorType, capture, content_hash
from taut.optimize import Recipe, Session, free_destination, load, read_recipe, read_report
from taut.optimize import _bundle as bundles
from taut.transform import apply_recipe

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


ENCODED: list[tuple[str, tuple[Any, ...]]] = [
    ("taut.decode.default", ("vsq9-v16-s4", (48, 32))),
    ("taut.decode.default", ("v" * 100_000, (48, 32))),
    ("taut.decode.default", ("vsq8-v16-s4", (48, 32))),
    ("taut.decode.default", ("vsq4-v16-s4", (32, 48))),
    ("taut.decode.default", ("vsq4-v16-s4", ())),
    ("taut.decode.default", ("vsq4-v16-s4", (-48, 32))),
    ("taut.decode.default", ("vsq4-v16-s4", (2**62, 2**62))),
    ("taut.encoded_embedding.default", ("q4_0", (64, 32))),
    ("taut.encoded_embedding.default", ("vsq4-v16-s4", (2**40, 32))),
    ("taut.encoded_embedding.default", ("vsq4-v16-s4", (0, 32))),
]


@pytest.fixture(scope="module")
def encoded() -> Graph:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(64, 32), torch.nn.Linear(32, 48)).eval()
    graph = capture(model, (torch.randint(0, 64, (4, 6)),))
    return apply_recipe(graph, [("quantise", {"scheme": "vsq4-v16-s4"})])[0]


@pytest.mark.parametrize(("op", "ending"), ENCODED, ids=lambda value: str(value)[:40])
def test_encoded_tensors_that_contradict_their_format_are_refused(
    encoded: Graph, tmp_path: Path, op: str, ending: tuple[Any, ...]
) -> None:
    forged = [
        dataclasses.replace(node, args=(*node.args[: -len(ending)], *ending)) if node.op == op else node
        for node in encoded.nodes
    ]
    graph = dataclasses.replace(encoded, nodes=tuple(forged))
    assert load(bundles.write_bundle(tmp_path / "whole.taut", encoded, Recipe(), sample_report()))
    path = bundles.write_bundle(tmp_path / "forged.taut", graph, Recipe(), sample_report())
    with pytest.raises(ArtefactError, match=f"graph.json: node .*{op}"):
        load(path)


def test_packed_weights_of_another_size_are_refused_before_they_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = capture(torch.nn.Linear(64, 64).eval(), (torch.randn(4, 64),))
    graph, _ = apply_recipe(graph, [("int8_linear", {})])
    key = next(key for key, tensor in graph.constants.items() if tensor.dtype is torch.int8)
    shorter = graph.constants[key][:-1].contiguous()
    other = content_hash(shorter)
    nodes = [
        dataclasses.replace(
            node,
            args=(other, node.args[1]),
            outputs=(TensorType(tuple(shorter.shape), torch.int8),),
        )
        if node.op == "constant" and node.args[0] == key
        else node
        for node in graph.nodes
    ]
    constants = {other if name == key else name: shorter if name == key else t for name, t in graph.constants.items()}
    forged = dataclasses.replace(graph, nodes=tuple(nodes), constants=constants)
    session = load(bundles.write_bundle(tmp_path / "forged.taut", forged, Recipe(), sample_report()))
    with pytest.raises(TautError, match="packed"):
        session(torch.randn(4, 64))


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
