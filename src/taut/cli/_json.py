"""Machine-readable output of the commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from taut._files import check_new, write_whole


def check_json(destination: str) -> None:
    """Refuse, before any work, a destination that exists or has no folder.

    Raises:
        ArgumentError: it exists already.
        StorageError: its folder is missing.
    """
    if destination != "-":
        check_new(Path(destination), "--json")


def write_json(document: object, destination: str) -> None:
    """Write a document to a new file, whole or not at all, or to standard output for "-".

    Raises:
        ArgumentError: the file exists already.
        StorageError: the file cannot be written.
    """
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if destination == "-":
        sys.stdout.write(text)
        return
    check_json(destination)
    write_whole(Path(destination), lambda path: path.write_text(text, encoding="utf-8"))
