"""What a room offers is listed, documented and importable."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from pathlib import Path

import pytest

import taut

SOURCE = Path(taut.__file__).parent
ROOMS = ("cli", "codegen", "compile", "cost", "export", "graph", "kernels", "numerics")
ROOMS += ("distributed", "hardware", "optimize", "runtime", "stats", "transform")


def test_the_face_of_taut() -> None:
    assert taut.__all__ == ["Result", "Session", "TautError", "__version__", "compile", "load", "optimize", "quantize"]
    for name in taut.__all__:
        assert getattr(taut, name) is not None
    assert callable(taut.optimize)
    assert callable(taut.compile)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_exports_what_it_lists_and_nothing_else(room: str) -> None:
    module = importlib.import_module(f"taut.{room}")
    listed = set(module.__all__)
    assert len(listed) == len(module.__all__)
    present = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", "").startswith("taut.")
    }
    assert present <= listed
    assert all(hasattr(module, name) for name in listed)


@pytest.mark.parametrize("room", ROOMS)
def test_public_functions_and_classes_are_documented(room: str) -> None:
    module = importlib.import_module(f"taut.{room}")
    values = {name: getattr(module, name) for name in module.__all__}
    bare = [
        name
        for name, value in values.items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and not (value.__doc__ or "").strip()
    ]
    assert bare == []


def imported_modules(file: Path) -> set[str]:
    """Every module that a file names in an import statement."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return found | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


def test_a_room_imports_other_rooms_by_their_faces_only() -> None:
    reaching_in = [
        f"{file.relative_to(SOURCE)}: {name}"
        for file in SOURCE.rglob("*.py")
        for name in imported_modules(file)
        if (parts := name.split("."))[0] == "taut"
        and len(parts) > 2
        and parts[2].startswith("_")
        and parts[1] != file.relative_to(SOURCE).parts[0]
    ]
    assert reaching_in == []


@pytest.mark.parametrize("room", ROOMS)
def test_only_the_face_is_public(room: str) -> None:
    assert [path.name for path in (SOURCE / room).glob("*.py") if not path.name.startswith("_")] == []
