"""Finding an experiment or a study by its name, in this process and in workers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from taut.errors import ArgumentError, ModelLoadError, TautError
from taut.stats._worker import load_function
from taut.stats.experiments._experiment import Experiment, check_experiment


def load_named(reference: str) -> Any:
    """What "path.py:name" or "module:name" names.

    Raises:
        ArgumentError: the text has neither form, or there is no such file.
        ModelLoadError: importing it raised, or it has no such name.
    """
    check_reference(reference)
    place, _, _ = reference.rpartition(":")
    before = list(sys.path)
    if place.endswith(".py"):
        sys.path.insert(0, str(Path(place).resolve().parent))
    try:
        return load_function(reference)
    except TautError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelLoadError(
            f"{reference}: {type(error).__name__}: {error}",
            expected="a file or module that can be imported and has that name at its top level",
        ) from error
    finally:
        sys.path[:] = before


def load_experiment(reference: str) -> Experiment:
    """The experiment that "path.py:name" or "module:name" names, itself, as a study's, or as what a function makes.

    Raises:
        ArgumentError: if it is none of these.
        ModelLoadError: as for a study.
    """
    found: Any = load_named(reference)
    if isinstance(found, type) or (callable(found) and not hasattr(found, "run")):
        found = found()
    experiment: Any = getattr(found, "experiment", found)
    check_experiment(experiment)
    return experiment


def check_reference(reference: str) -> None:
    """Refuse what names nothing.

    Raises:
        ArgumentError: it is not "path.py:name" or "module:name", or there is no such file.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise ArgumentError("reference", reference, expected='"path.py:name" or "module:name"')
    if place.endswith(".py") and not Path(place).is_file():
        raise ArgumentError("reference", reference, expected="a file that exists")


def absolute_reference(reference: str) -> str:
    """The reference as a process in another folder understands it."""
    place, _, name = reference.rpartition(":")
    return f"{Path(place).resolve()}:{name}" if place.endswith(".py") else reference
