"""The record of the host."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from taut.errors import ArgumentError
from taut.stats import HostFingerprint, _fingerprint, fingerprint


def test_key_stays_while_load_and_clock_change_and_moves_with_the_versions() -> None:
    host = fingerprint()
    later = dataclasses.replace(host, load_average=99.0, clock_mhz=1.0, threads=77)
    other = dataclasses.replace(host, versions=host.versions | {"torch": "1.0"})
    assert host.key == later.key != other.key


def test_fingerprint_survives_json() -> None:
    host = fingerprint()
    assert HostFingerprint.from_dict(json.loads(json.dumps(host.to_dict(), allow_nan=False))) == host


def test_a_record_without_a_field_is_refused() -> None:
    record = fingerprint().to_dict()
    del record["cores"]
    with pytest.raises(ArgumentError, match="cores"):
        HostFingerprint.from_dict(record)


def test_a_system_that_hides_everything_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(self: Path, *args: object, **kwargs: object) -> str:
        raise PermissionError(str(self))

    monkeypatch.setattr(Path, "read_text", hidden)
    monkeypatch.setattr(_fingerprint.platform, "processor", lambda: "")
    monkeypatch.delattr(_fingerprint.os, "sched_getaffinity", raising=False)
    host = fingerprint()
    assert (host.cpu, host.isa, host.caches, host.memory_bytes, host.virtualised) == (None, (), {}, None, None)
    assert host.cores >= 1
    assert len(host.key) == 16


def test_the_room_imports_neither_torch_nor_scipy() -> None:
    script = "import sys, taut.stats; taut.stats.fingerprint(); print('torch' in sys.modules, 'scipy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
