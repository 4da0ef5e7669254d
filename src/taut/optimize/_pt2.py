"""Loading a `.pt2` file that nobody vouches for.

`torch.export.load` falls back to full unpickling, unpickles custom objects and evaluates symbolic expressions as
Python. Each of these runs code from the file, so the archive is inspected before torch sees it, and the load runs
with weights-only unpickling forced.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from taut.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

_TOKEN = re.compile(r"\s+|'[A-Za-z]\w*'|-?\d+|[A-Za-z]\w*|[(),=]")
_NAMES = re.compile(
    r"Symbol|Integer|Rational|Add|Mul|Pow|Mod|Max|Min|And|Or|Not|Eq|Ne|Equality|Unequality|Lt|Le|Gt|Ge"
    r"|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|FloorDiv|PythonMod|CleanDiv|CeilDiv|Where|IntTrueDiv"
    r"|FloatTrueDiv|TruncToInt|ToFloat|CeilToInt|FloorToInt|RoundToInt|LShift|RShift|PowByNatural|Identity"
    r"|IsNonOverlappingAndDenseIndicator|BooleanTrue|BooleanFalse|[Tt]rue|[Ff]alse"
    r"|positive|nonnegative|negative|integer|real|[a-z]\d*|u\d+"
)
_TARGET = re.compile(r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?|math\.\w+|torch\.sym_\w+")
_OPERATORS = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_|getitem|pow|pos|not_|index)"
)
_MAX_DESCRIPTION = 256 * 2**20


def load_pt2(path: Path) -> torch.export.ExportedProgram:
    """Load an exported program without running code from the file.

    Args:
        path: a file written by `torch.export.save`.

    Raises:
        ModelLoadError: the file is missing, no archive, truncated, or holds something that could run code.
    """
    import torch

    _inspect(path)
    try:
        with _weights_only():
            return torch.export.load(path)
    except Exception as error:  # torch raises many kinds on a damaged archive
        raise ModelLoadError(
            f"{path}: torch.export.load failed: {type(error).__name__}: {_first_line(error)}",
            expected="an archive written by torch.export.save",
            fix="export the model again with this version of torch",
        ) from error


def _inspect(path: Path) -> None:
    if not path.is_file():
        raise ModelLoadError(f"{path}: no such file", expected="a .pt2 file")
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                _inspect_member(path, archive, info)
    except (
        zipfile.BadZipFile,
        EOFError,
        UnicodeDecodeError,
        json.JSONDecodeError,
        RecursionError,
        NotImplementedError,
    ) as error:
        raise ModelLoadError(
            f"{path}: not a readable .pt2 archive ({_first_line(error)})",
            expected="an archive written by torch.export.save",
        ) from error


def _inspect_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    name = info.filename
    base = name.rsplit("/", 1)[-1]
    if base.startswith(("custom_obj_", "opaque_obj_")) or name.endswith((".so", ".py", ".pkl")):
        raise _refused(path, f"it holds {name}, which could run code when loaded")
    if not name.endswith(".json"):
        return
    if info.file_size > _MAX_DESCRIPTION:
        raise _refused(path, f"{name} is larger than {_MAX_DESCRIPTION} bytes")
    for key, value in _strings(json.loads(archive.read(info).decode())):
        if key in ("expr_str", "expr") and not _harmless_expression(value):
            raise _refused(path, f"{name} holds the expression {value[:80]!r}")
        if key == "target" and not _harmless_target(value):
            raise _refused(path, f"{name} calls {value[:80]!r}")
        if key == "path_name" and value.startswith(("custom_obj_", "opaque_obj_")):
            raise _refused(path, f"{name} refers to the pickled object {value[:80]!r}")


def _strings(tree: object) -> Iterator[tuple[str, str]]:
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            for key, value in item.items():
                if isinstance(value, str):
                    yield key, value
                else:
                    pending.append(value)
        elif isinstance(item, list):
            pending.extend(item)


def _harmless_expression(text: str) -> bool:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return False
        token = match.group()
        if token[0].isalpha() and not _NAMES.fullmatch(token):
            return False
        position = match.end()
    return True


def _harmless_target(text: str) -> bool:
    return bool(_TARGET.fullmatch(text) or _OPERATORS.fullmatch(text))


def _refused(path: Path, reason: str) -> ModelLoadError:
    return ModelLoadError(
        f"{path}: refused, because {reason}",
        expected="an exported program of ATen operators and plain tensors",
        fix="give the model as path.py:factory instead, if you trust its source",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
