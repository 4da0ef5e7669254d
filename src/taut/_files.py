"""Writing files and folders whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
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


def write_folder(path: Path, write: Callable[[Path], object], *, argument: str = "--out") -> None:
    """Write a folder beside its place, then rename; replaces what is there.

    Args:
        path: the folder.
        write: called with the temporary folder; must leave the content there.
        argument: what the user calls the path.

    Raises:
        StorageError: it cannot be written; what was there before stays, and nothing else is left behind.
    """
    with _storage_errors(path, argument):
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
    try:
        with _storage_errors(path, argument):
            write(staging)
            staging.chmod(0o755)
            _swap(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _swap(staging: Path, path: Path) -> None:
    if not path.exists():
        staging.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.absolute().parent))
    path.rename(old / path.name)
    try:
        staging.rename(path)
    except OSError:
        (old / path.name).rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _storage_errors(path: Path, argument: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Writers of single files name the hidden folder that all is made in; the user knows only `path`.
        cause = error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error
        reason = getattr(cause, "strerror", None) or cause
        raise StorageError(
            f"{path}: cannot be written ({reason})", fix=f"free some space, or choose another {argument}"
        ) from error


def check_new_folder(path: Path, *, force: bool, marker: str, what: str, argument: str = "--out") -> None:
    """Refuse, before any work, a folder that cannot or may not be written.

    Args:
        path: the folder that will be written.
        force: whether one that is there may be replaced.
        marker: the file by which a folder is known to be one that may be replaced.
        what: what such a folder is, e.g. "taut bundle".
        argument: what the user calls the path.

    Raises:
        ArgumentError: it exists and `force` is False, or it is not of the kind that could be replaced.
        StorageError: the folder that it goes to is missing or not writable.
    """
    if path.exists() or path.is_symlink():
        if not force:
            raise ArgumentError(
                argument, str(path), expected="a path that does not exist yet", fix="add --force to replace it"
            )
        if path.is_symlink() or not (path / marker).is_file():
            raise ArgumentError(
                argument, str(path), expected=f"a {what} to replace", fix="remove it yourself, or choose another path"
            )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder", fix=f"create it, or choose another {argument}")
    if not os.access(folder, os.W_OK):
        raise StorageError(f"{folder}: not writable", fix=f"choose another {argument}")


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


def cache_directory() -> Path:
    """Where taut keeps what it can measure again: `$TAUT_CACHE`, else `taut` in the user's XDG cache directory."""
    chosen = os.environ.get("TAUT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root and Path(root).is_absolute() else Path.home() / ".cache") / "taut"
