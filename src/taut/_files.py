"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from taut.errors import ArgumentError, StorageError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write through a temporary file in the same folder, then rename; replaces what is there.

    Args:
        path: the file.
        write: called with the temporary path; must leave the content there.

    Raises:
        StorageError: it cannot be written; what was there before stays, and nothing else is left behind.
    """
    temporary: Path | None = None
    try:
        # The suffix stays: some writers look at it, or add their own.
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.absolute().parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        mask = os.umask(0o022)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{path}: cannot be written ({reason})", fix="free space on the disk, or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def check_new(path: Path, argument: str, *, fix: str = "choose another name") -> None:
    """Refuse, before any work, a file that exists or has no folder.

    Args:
        path: the file that will be written.
        argument: what the user calls it.
        fix: what to do about a file that exists.

    Raises:
        ArgumentError: it exists already; nothing of the user's is overwritten.
        StorageError: its folder is missing.
    """
    if path.exists() or path.is_symlink():
        raise ArgumentError(argument, str(path), expected="a file that does not exist yet", fix=fix)
    if not path.absolute().parent.is_dir():
        raise StorageError(f"{argument} {path}: no such folder {path.parent}", fix="create it, or choose another")


def check_distinct(paths: Mapping[str, Path | None]) -> None:
    """Refuse two outputs that are one file.

    Args:
        paths: the path of each option, None where it is not given.

    Raises:
        ArgumentError: naming the second of them.
    """
    seen: dict[Path, str] = {}
    for argument, path in paths.items():
        if path is None:
            continue
        place = path.absolute()
        if place in seen:
            raise ArgumentError(argument, str(path), expected=f"another file than {seen[place]}")
        seen[place] = argument
