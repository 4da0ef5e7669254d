"""From what the user typed to a model, its example inputs and a callable."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from taut.errors import ArgumentError, ExportError, ModelLoadError, TautError
from taut.optimize._pt2 import load_pt2

if TYPE_CHECKING:
    import torch

    from taut.graph import Graph

EMBEDDED_EXAMPLE = "taut.examples.digits:model"


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model ready to be captured.

    Attributes:
        module: the module, or the exported program of a `.pt2` file.
        example_inputs: one call's positional inputs, or None where the factory gave none.
        dynamic_shapes: as `torch.export.export` takes it, or None.
        name: a short name for files and headings.
        source: what the user typed.
    """

    module: torch.nn.Module | torch.export.ExportedProgram
    example_inputs: tuple[Any, ...] | None
    dynamic_shapes: Any
    name: str
    source: str


def load_model(spec: str) -> LoadedModel:
    """Load a model from `path.py:factory`, `package.module:factory` or a `.pt2` file.

    A factory takes no argument and returns a module, or (module, example inputs), or (module, example inputs,
    dynamic shapes).

    Raises:
        ModelLoadError: the file, module or factory is missing, the factory raised, or it returned something else.
        ArgumentError: the text has none of the three forms.
    """
    if spec.endswith(".pt2"):
        path = Path(spec)
        program = load_pt2(path)
        example = program.example_inputs[0] if program.example_inputs else None
        return LoadedModel(program, example, None, path.stem, spec)
    function, name = load_function(spec, argument="MODEL")
    made = call_user(function, spec)
    parts = made if isinstance(made, tuple) else (made,)
    return as_loaded_model(parts, name=name, source=spec)


def as_loaded_model(parts: tuple[Any, ...], *, name: str, source: str) -> LoadedModel:
    """Check what a factory returned.

    Raises:
        ModelLoadError: it is not (module[, example inputs[, dynamic shapes]]).
    """
    import torch

    module, example, shapes = (*parts, None, None, None)[:3]
    if len(parts) > 3 or not isinstance(module, (torch.nn.Module, torch.export.ExportedProgram)):
        shown = ", ".join(type(part).__name__ for part in parts)
        raise ModelLoadError(
            f"{source}: the factory returned ({shown})",
            expected="an nn.Module, (module, example_inputs) or (module, example_inputs, dynamic_shapes)",
        )
    if isinstance(example, torch.Tensor):
        example = (example,)
    if example is not None and not isinstance(example, (tuple, list)):
        raise ModelLoadError(
            f"{source}: example inputs are a {type(example).__name__}",
            expected="a tensor or a tuple of the positional inputs of one call",
        )
    return LoadedModel(module, None if example is None else tuple(example), shapes, name, source)


def load_function(spec: str, *, argument: str) -> tuple[Callable[..., Any], str]:
    """Import the function behind `path.py:name` or `package.module:name`, with a short name for it.

    Raises:
        ArgumentError: the text has neither form.
        ModelLoadError: the file, the module or the function is missing, or importing it raised.
    """
    place, colon, attribute = spec.rpartition(":")
    if not colon or not place or not attribute.isidentifier():
        raise ArgumentError(argument, spec, expected="path.py:function, package.module:function or a file")
    path = Path(place)
    module = _import_file(path, spec) if place.endswith(".py") else _import_module(place, spec)
    function = getattr(module, attribute, None)
    if not callable(function):
        public = sorted(
            name
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        )
        raise ModelLoadError(
            f"{spec}: {place} has no function {attribute!r}",
            expected=f"one of {', '.join(public)}" if public else "a function",
        )
    base = path.stem if place.endswith(".py") else place.rsplit(".", 1)[-1]
    return function, base if attribute in ("model", "data", "factory") else f"{base}-{attribute}"


def _import_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise ModelLoadError(
            f"{spec}: there is no file {path}", fix="check the path; it is relative to the current folder"
        )
    resolved = path.resolve()
    name = f"{path.stem}_{hashlib.sha256(str(resolved).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    described = importlib.util.spec_from_file_location(name, resolved)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    folder = str(resolved.parent)
    sys.path.insert(0, folder)
    sys.modules[name] = module
    try:
        described.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _user_code_failed(f"importing {path}", error) from error
    finally:
        sys.path.remove(folder)
    return module


def _import_module(name: str, spec: str) -> ModuleType:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModelLoadError(
                f"{spec}: there is no module {name}", fix="check the name, or give the file as path.py:function"
            ) from error
        raise _user_code_failed(f"importing {name}", error) from error
    except BaseException as error:
        raise _user_code_failed(f"importing {name}", error) from error
    finally:
        sys.path.remove(here)


def call_user(function: Callable[..., Any], spec: str) -> Any:
    """Call a function that the user named; what it raises becomes a `ModelLoadError`."""
    try:
        return function()
    except BaseException as error:
        raise _user_code_failed(f"{spec} raised when called", error) from error


def _user_code_failed(doing: str, error: BaseException) -> BaseException:
    """The error to raise for what the user's code raised; taut's own and Ctrl-C pass unchanged."""
    if isinstance(error, (TautError, KeyboardInterrupt)):
        return error
    where = user_line(error)
    if isinstance(error, SyntaxError):
        where = f" at {Path(error.filename or '?').name}:{error.lineno}"
    return ModelLoadError(
        f"{doing}: {type(error).__name__}: {str(error).strip()[:500]}{where}",
        fix="make the factory run on its own first: python -c 'from FILE import FACTORY; FACTORY()'",
    )


def user_line(error: BaseException) -> str:
    """The text " at FILE:LINE" for the innermost frame in the user's own code, or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    others = ("taut/optimize/", "importlib", "/site-packages/torch/")
    users = [frame for frame in frames if not any(part in frame.filename for part in others)]
    return f" at {Path(users[-1].filename).name}:{users[-1].lineno}" if users else ""


def capture_model(loaded: LoadedModel, example: tuple[Any, ...], shapes: Any) -> Graph:
    """Capture a model's graph.

    Args:
        loaded: the model.
        example: one call's positional inputs.
        shapes: as `torch.export.export` takes it, or None.

    Raises:
        ModelLoadError: the model itself cannot run on the example, which torch.export would put less clearly.
        ExportError: the model runs, but torch.export refused it.
    """
    import torch

    from taut.graph import capture

    try:
        return capture(loaded.module, example, dynamic_shapes=shapes)
    except ExportError as refusal:
        if not isinstance(loaded.module, torch.nn.Module):
            raise
        try:
            with torch.inference_mode():
                loaded.module.eval()(*example)
        except Exception as error:
            raise _cannot_run(loaded.source, example, error) from refusal
        raise


def _cannot_run(source: str, example: tuple[Any, ...], error: Exception) -> ModelLoadError:
    import torch

    shapes = ", ".join(
        str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__ for value in example
    )
    said = (str(error).splitlines() or [""])[0][:300] + user_line(error)
    return ModelLoadError(
        f"{source}: the model raised {type(error).__name__} on its example inputs ({shapes}): {said}",
        expected="positional inputs that the model accepts when it is called",
        fix="call it on them yourself: module.eval()(*example_inputs)",
    )
