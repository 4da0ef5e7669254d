"""Building: the cache, recipes that crash or hang, missing tools, several builders at once."""

from __future__ import annotations

import ctypes
import importlib.util
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from taut.codegen import Built, Operand, Recipe, _build, _halide_runtime, _workers, build, build_in_advance, map_recipe
from taut.codegen._call import Kernel
from taut.errors import ArgumentError, BuildError, MissingExtraError, StorageError

ROW = Operand("float32", (None,))


def doubled(times: int = 2) -> Recipe:
    return map_recipe((("operand", 0), ("constant", float(times)), ("mul", 0, 1)), [ROW], ROW)


BAD = map_recipe((("operand", 0), ("frobnicate", 0)), [ROW], ROW)

# A worker that does what the template's name says. The expression tells Halide nothing here.
ACTOR = """
import json, os, signal, sys
for line in sys.stdin:
    job = json.loads(line)
    name = job.get("recipe", {}).get("template")
    if name == "abort":
        print("last words", file=sys.stderr, flush=True)
        os.abort()
    if name == "hang":
        signal.pause()
    print(json.dumps({"seconds": 0.5}), flush=True)
"""


def check(built: Built, recipe: Recipe, times: int = 2) -> None:
    x = np.arange(20, dtype=np.float32)
    output = np.zeros_like(x)
    Kernel(built, recipe)(x, output)
    np.testing.assert_array_equal(output, times * x)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the runtime."""
    folder = tmp_path_factory.mktemp("kernels")
    build([doubled()], cache=folder)
    return folder


def no_processes(*_: object, **__: object) -> None:
    raise AssertionError("a process was started")


def test_a_warm_build_starts_no_process(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_build, "generate_all", no_processes)
    monkeypatch.setattr(_build, "_link", no_processes)
    built = build([doubled(), doubled()], cache=cache)
    assert built.seconds == {}
    assert list(built.symbols) == [doubled().key]
    check(built, doubled())


@pytest.mark.parametrize("damage", ["cut", "changed", "hash", "gone"])
def test_a_damaged_library_is_built_again(cache: Path, tmp_path: Path, damage: str) -> None:
    recipe = doubled(3 + ["cut", "changed", "hash", "gone"].index(damage))
    path = build([recipe], cache=cache).path
    assert path is not None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "cut":
        path.write_bytes(content[:100])
    elif damage == "changed":
        path.write_bytes(content)
    elif damage == "hash":
        path.with_suffix(".sha256").write_bytes(b"\xff")
    else:
        path.unlink()
    again = build([recipe], cache=cache)
    assert again.seconds
    check(again, recipe, 3 + ["cut", "changed", "hash", "gone"].index(damage))


def test_a_recipe_that_fails_stops_no_other(cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    built = build([BAD, doubled(9)], cache=cache, jobs=1, progress=lambda *counts: seen.append(counts))
    assert list(built.failed) == [BAD.key]
    assert "frobnicate" in built.failed[BAD.key]
    assert seen == [(1, 2), (2, 2)]
    check(built, doubled(9), 9)
    with pytest.raises(ArgumentError, match="frobnicate"):
        Kernel(built, BAD)
    assert build([BAD], cache=cache).path is None


def test_crashes_and_hangs_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "_COMMAND", (sys.executable, "-c", ACTOR))
    jobs = [{"recipe": {"template": name}} for name in ("well", "abort", "hang", "well")]
    outcomes: dict[int, float | str] = {}
    _workers.generate_all(jobs, target="host", workers=1, timeout=1.0, done=outcomes.__setitem__)
    assert outcomes[0] == outcomes[3] == 0.5
    assert "took longer than 1 s" in str(outcomes[2])
    assert f"status {-signal.SIGABRT}" in str(outcomes[1])
    assert "last words" in str(outcomes[1])


def test_an_interruption_ends_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "_COMMAND", (sys.executable, "-c", ACTOR))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    jobs = [{"recipe": {"template": name}} for name in ("hang", "well", "hang")]
    with pytest.raises(KeyboardInterrupt):
        _workers.generate_all(jobs, target="host", workers=2, timeout=60.0, done=interrupt)


def test_builders_at_the_same_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: build([doubled()], cache=tmp_path, jobs=1), range(2)))
    for built in results:
        check(built, doubled())
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_runtime_is_generated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path))
    generate, jobs = _halide_runtime.generate_all, []
    monkeypatch.setattr(
        _halide_runtime, "generate_all", lambda given, **rest: jobs.append(given) or generate(given, **rest)
    )
    build_in_advance()
    build_in_advance()
    check(build([doubled()]), doubled())
    build_in_advance()
    assert len(jobs) == 1


def test_a_runtime_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(_halide_runtime, "generate_all", lambda given, *, done, **_: done(0, "no memory"))
        build_in_advance()
        with pytest.raises(BuildError, match="runtime could not be generated: no memory"):
            build([doubled()])
    check(build([doubled()]), doubled())


def test_nothing_is_built_in_advance_where_building_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_halide_runtime, "generate_all", no_processes)
    (tmp_path / "file").touch()
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path / "file"))
    build_in_advance()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    _build.host_target.cache_clear()
    build_in_advance()


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BuildError, match="no C\\+\\+ compiler"):
        build([doubled()], cache=tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="no-such-compiler"):
        build([doubled()], cache=tmp_path)


def test_a_compiler_that_cannot_link(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\necho cannot find -lmagic >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(BuildError, match="magic"):
        build([doubled(11)], cache=cache)


def test_without_halide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    _build.host_target.cache_clear()
    with pytest.raises(MissingExtraError, match="halide"):
        build([doubled()], cache=tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="TAUT_CACHE"):
        build([doubled()], cache=tmp_path / "file" / "folder")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TAUT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = build([doubled()])
    assert built.path is not None
    assert built.path.parent == tmp_path / "taut" / "codegen"
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path / "own"))
    built = build([doubled()])
    assert built.path is not None
    assert built.path.parent == tmp_path / "own" / "codegen"


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="jobs"):
        build([doubled()], jobs=0)
    with pytest.raises(ArgumentError, match="timeout"):
        build([doubled()], timeout=0)
    assert build([]) == Built(None, {}, {}, {})
    with pytest.raises(ArgumentError, match="recipe"):
        Kernel(build([]), doubled())


def test_only_the_kernels_are_exported(cache: Path) -> None:
    path = build([doubled()], cache=cache).path
    library = ctypes.CDLL(str(path))
    assert not hasattr(library, "halide_malloc")


def test_a_recipe_survives_json() -> None:
    recipe = doubled()
    again = Recipe.from_dict(recipe.to_dict())
    assert again == recipe
    assert again.key == recipe.key
