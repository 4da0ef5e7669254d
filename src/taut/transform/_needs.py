"""What the host offers of what passes need."""

from __future__ import annotations

from collections.abc import Callable

import torch

from taut.transform._protocol import Pass


def _capability(name: str) -> bool:
    return bool(torch.cpu.get_capabilities().get(name, False))


_CHECKS: dict[str, tuple[Callable[[], bool], str]] = {
    "avx512_bf16": (
        lambda: _capability("avx512_bf16") or _capability("amx_bf16"),
        "this processor has no bfloat16 dot product (AVX-512 BF16 or AMX), so bfloat16 would be emulated",
    ),
    "mkldnn": (torch.backends.mkldnn.is_available, "this build of torch has no oneDNN"),
}


def missing_needs(candidate: Pass) -> tuple[str, ...]:
    """Why this host cannot profit from a pass, one sentence a missing feature; empty where nothing is missing.

    Passes themselves do not refuse: a graph may be prepared on one host for another.
    """
    return tuple(why for need in candidate.needs for present, why in (_CHECKS[need],) if not present())
