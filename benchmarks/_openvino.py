"""OpenVINO as a peer."""

from __future__ import annotations

import os
from typing import Any


def load_openvino() -> Any:
    """The module, imported without its telemetry, which forks a process on import that may hang for ever."""
    os.environ["CI"] = "true"
    import openvino  # pyright: ignore[reportMissingImports] - of no extra

    return openvino
