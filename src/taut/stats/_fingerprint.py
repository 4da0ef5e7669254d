"""What a measurement depends on besides the code: the host."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from taut.errors import ArgumentError

# Instruction sets that kernels are chosen by, as Linux spells them (x86 flags and Arm features).
_ISA_FLAGS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_vpopcntdq", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
_VOLATILE = ("threads", "clock_mhz", "load_average")


@dataclass(frozen=True)
class HostFingerprint:
    """The host of a measurement; what cannot be read is None or empty.

    Attributes:
        cpu: model name.
        architecture: e.g. "x86_64".
        isa: instruction set extensions that kernels are chosen by.
        cores: logical cores that this process may use.
        cpu_quota: cores' worth of time that the control group may use, None if it is not limited.
        threads: of torch, if it is loaded; else OMP_NUM_THREADS.
        caches: bytes of one cache by name, e.g. {"L1d": 49152}.
        memory_bytes: total main memory, rounded to GiB.
        clock_mhz: now, the mean of all cores.
        clock_max_mhz: highest that the driver allows.
        governor: of the clock frequency.
        load_average: over one minute.
        kernel: operating system and its release.
        versions: of python, torch, numpy and taut.
        virtualised: whether a hypervisor is below us.
    """

    cpu: str | None
    architecture: str
    isa: tuple[str, ...]
    cores: int
    cpu_quota: float | None
    threads: int | None
    caches: dict[str, int]
    memory_bytes: int | None
    clock_mhz: float | None
    clock_max_mhz: float | None
    governor: str | None
    load_average: float | None
    kernel: str
    versions: dict[str, str]
    virtualised: bool | None

    @property
    def key(self) -> str:
        """Short hash of what stays the same from run to run: equal keys, comparable measurements."""
        stable = {name: value for name, value in asdict(self).items() if name not in _VOLATILE}
        return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The fingerprint as plain JSON data."""
        return asdict(self) | {"isa": list(self.isa)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostFingerprint:
        """The fingerprint that `to_dict` described.

        Raises:
            ArgumentError: if a field is missing.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in data]
        if missing:
            raise ArgumentError("fingerprint", sorted(data), expected=f"the fields {', '.join(missing)} as well")
        values: dict[str, Any] = {name: data[name] for name in names}
        values["isa"] = tuple(values["isa"])
        return cls(**values)


def fingerprint() -> HostFingerprint:
    """Describe the host; never raises, whatever the system hides."""
    info = _read("/proc/cpuinfo") or ""
    flags = set(_field(info, "flags", "Features").split())
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo") or "")
    frequency = "/sys/devices/system/cpu/cpu0/cpufreq/"
    highest = _read(frequency + "cpuinfo_max_freq")
    clocks = [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", info, re.MULTILINE)]
    return HostFingerprint(
        cpu=_field(info, "model name", "Model") or platform.processor() or None,
        architecture=platform.machine(),
        isa=tuple(flag for flag in _ISA_FLAGS if flag in flags),
        cores=available_cores(),
        cpu_quota=_cpu_quota(),
        threads=_threads(),
        caches=_caches(),
        memory_bytes=round(int(memory[1]) / 2**20) * 2**30 if memory else None,
        clock_mhz=round(sum(clocks) / len(clocks), 1) if clocks else None,
        clock_max_mhz=int(highest) / 1000 if highest and highest.isdigit() else None,
        governor=_read(frequency + "scaling_governor"),
        load_average=load_average(),
        kernel=f"{platform.system()} {platform.release()}",
        versions=_versions(),
        virtualised="hypervisor" in flags if flags else None,
    )


def available_cores() -> int:
    """Logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Runnable tasks on the host, averaged over one minute; None where the system does not say."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _field(info: str, *names: str) -> str:
    for name in names:
        found = re.search(rf"^{name}\s*:\s*(.*)$", info, re.MULTILINE)
        if found:
            return found[1].strip()
    return ""


def _cpu_quota() -> float | None:
    words = (_read("/sys/fs/cgroup/cpu.max") or "max").split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    return int(words[0]) / int(words[1])


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    if hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())  # pyright: ignore[reportOptionalMemberAccess]
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdigit() else None


def _caches() -> dict[str, int]:
    found: dict[str, int] = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(f"{folder}/{name}") or "" for name in ("level", "type", "size"))
        if level and size.endswith("K") and size[:-1].isdigit():
            found[f"L{level}{ {'Data': 'd', 'Instruction': 'i'}.get(kind, '') }"] = int(size[:-1]) * 1024
    return found


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "taut"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
