"""Measurements that a benchmark keeps, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class State:
    """Measurements by key, kept in a file if there is one.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] = json.loads(path.read_text()) if path is not None and path.exists() else {}

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        """What is known of a key, or is measured now."""
        if key not in self._known:
            self._known[key] = measure()
            if self._path is not None:
                self._path.write_text(json.dumps(self._known))
        return self._known[key]

    def knows(self, key: str) -> bool:
        """Whether it was measured."""
        return key in self._known
