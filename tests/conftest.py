"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy host is no failure, and CI tries the same examples each time; elsewhere they vary.
settings.register_profile(
    "taut", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("taut")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep measurements of the tests apart from the user's."""
    before = os.environ.get("TAUT_CACHE")
    path = tmp_path_factory.mktemp("cache")
    os.environ["TAUT_CACHE"] = str(path)
    yield path
    if before is None:
        del os.environ["TAUT_CACHE"]
    else:
        os.environ["TAUT_CACHE"] = before


@pytest.fixture(scope="module")
def made_up_host() -> Iterator[None]:
    """One thread, made-up peaks and short comparisons, nothing compiled: the job neither calibrates nor builds."""
    from taut.cost import Peaks
    from taut.optimize import _compiled, _outcome, _planner, _search, _settings
    from taut.stats import quietness

    peaks = Peaks(
        threads=1,
        flops={"fp32": 1e11, "bf16": 4e11, "int8": 8e11},
        bandwidth={"l1": 4e11, "l2": 2e11, "l3": 1e11, "dram": 2e10},
        cache_bytes={"l1": 48 * 1024, "l2": 1024**2, "l3": 32 * 1024**2},
        dispatch={"interpreter": 1e-6, "eager": 4e-6},
    )
    noise = quietness()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_outcome, "quietness", lambda: noise)
        patch.setattr(_compiled, "missing_for_compiling", lambda: "the made-up host has no compiler")
        patch.setattr(_planner, "calibrate", lambda **_: peaks)
        patch.setattr(_settings, "thread_choices", lambda: (1,))
        patch.setattr(_search, "_LEAST_SECONDS", 0.2)
        patch.setattr(_search, "_MOST_SECONDS", 0.4)
        yield
