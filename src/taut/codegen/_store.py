"""What building keeps on this host: files named by a hash of their origin, with a hash of their content beside."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from taut._files import write_whole


def identity(keys: Iterable[str], target: str) -> str:
    """The name of what is made of these recipes for a target, by this version of taut and Halide."""
    text = [_version(), target, importlib.metadata.version("halide"), sorted(keys)]
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()[:32]


def keep(made: Path, path: Path) -> None:
    """Move a file into the cache with a hash beside it; either may be replaced by another process at any time."""
    digest = _digest(made)
    write_whole(path, lambda temporary: shutil.copyfile(made, temporary))
    write_whole(path.with_suffix(".sha256"), lambda temporary: temporary.write_text(digest))


def intact(path: Path) -> bool:
    """Whether a file is there as it was kept."""
    try:
        return path.with_suffix(".sha256").read_text().strip() == _digest(path)
    except (OSError, UnicodeDecodeError):
        return False


@functools.cache
def _version() -> str:
    """A hash of this room's source: a kernel that other templates generated is not used."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
