"""The lab of shaped links: it holds its rates, counts bytes, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wire_ranks

from taut.distributed import LinkLab, missing_for_lab
from taut.errors import ArgumentError, MeasurementError
from taut.hardware import ring_all_reduce

REASON = missing_for_lab()
needs_lab = pytest.mark.skipif(REASON is not None, reason=f"no lab of shaped links: {REASON}")
MEGABIT = 1e6 / 8


def namespaces() -> list[str]:
    return [path.name for path in Path("/run/netns").glob(f"taut-lab-{os.getpid()}-*")]


@pytest.fixture(scope="module")
def lab() -> Iterator[LinkLab]:
    with LinkLab(2, bandwidth=200 * MEGABIT) as made:
        yield made


@needs_lab
@pytest.mark.slow
@pytest.mark.parametrize("megabits", [50, 200, 500])
def test_an_all_reduce_takes_no_less_than_its_formula(lab: LinkLab, megabits: float) -> None:
    lab.shape(megabits * MEGABIT)
    elements = 1_000_000
    found = min(lab.run(wire_ranks.seconds_of_all_reduce, elements))
    # What a token bucket lets pass at once does not wait.
    burst = 32 * 1024 / (megabits * MEGABIT)
    assert found >= ring_all_reduce(4 * elements, 2, megabits * MEGABIT) - 2 * burst


@needs_lab
@pytest.mark.slow
def test_the_interface_counts_the_bytes_that_the_wire_means_to_send(lab: LinkLab) -> None:
    lab.shape(None)
    kept = 200_000
    lab.run(wire_ranks.gather_once, kept, "compact")  # makes room
    sent = {}
    for coding in ("plain", "compact"):
        before = lab.bytes_sent()
        lab.run(wire_ranks.gather_once, kept, coding)
        sent[coding] = max(after - start for after, start in zip(lab.bytes_sent(), before, strict=True))
    assert kept * 6 < sent["plain"] < kept * 6 * 1.1
    assert sent["compact"] < kept * (2 + 8.5 / 8) * 1.1


@needs_lab
@pytest.mark.slow
def test_nothing_is_left_behind_after_an_error() -> None:
    before = namespaces()
    with pytest.raises(MeasurementError, match="rank one cannot"), LinkLab(2) as made:
        made.run(wire_ranks.fail_on_one)
    assert namespaces() == before


@needs_lab
@pytest.mark.slow
def test_the_next_lab_removes_what_a_killed_process_left() -> None:
    script = (
        "from taut.distributed import LinkLab\n"
        "if __name__ == '__main__':\n"
        "    with LinkLab(2):\n"
        "        print('up', flush=True)\n"
        "        input()\n"
    )
    path = Path(os.environ["TAUT_CACHE"]) / "killed_lab.py"
    path.write_text(script)
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        mark = f"taut-lab-{process.pid}-"
        assert any(one.name.startswith(mark) for one in Path("/run/netns").iterdir())
        process.send_signal(signal.SIGKILL)
    with LinkLab(2):
        assert not any(one.name.startswith(mark) for one in Path("/run/netns").iterdir())


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, 1e15, float("nan")])
def test_a_bandwidth_that_cannot_be_is_refused(bandwidth: float) -> None:
    with pytest.raises(ArgumentError, match="bandwidth"):
        LinkLab(2, bandwidth=bandwidth)


def test_where_no_lab_can_be_the_error_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing_for_lab() == "not run as root"
    with pytest.raises(MeasurementError, match="not run as root"), LinkLab(2):
        pass
