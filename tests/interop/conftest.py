from __future__ import annotations

from pathlib import Path

import pytest

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "data" / "schedules" / "ios"


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of the graphs and schedules that the IOS project publishes."""
    if not PUBLISHED.is_dir():
        pytest.skip(f"no published schedules at {PUBLISHED}")
    return PUBLISHED
