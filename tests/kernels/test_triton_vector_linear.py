"""The Triton kernel in Triton's interpreter, on real instruction sets as far as compiling goes, and its refusals."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from triton_interpreter import make

from taut.errors import KernelError
from taut.kernels import pack_triton_vector_linear, triton_vector_linear

COMPILE = """
import re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from taut.kernels._triton_vector_linear import _multiply, _quantise_rows, interpreting

assert not interpreting()
pointers = dict(integers="*i8", row_scales="*fp32", packed="*u8", gammas="*fp32", bias="*fp32", y="*bf16")
sizes = dict(rows="i32", channels="i32", features="i32")
constants = dict(HAS_BIAS=True, ACTIVATION="gelu", BLOCK_M=64, BLOCK_N=64)
signature = pointers | sizes | dict.fromkeys(constants, "constexpr")
quantise = dict(x="*bf16", integers="*i8", scales="*fp32", features="i32", BLOCK="constexpr")
for capability, product in ((80, r"mma\\.sync\\S*s32\\.s8\\.s8\\.s32"), (90, r"wgmma\\.mma_async\\S*s32\\.s8\\.s8")):
    target, options = GPUTarget("cuda", capability, 32), {"enable_fp_fusion": False}
    compiled = triton.compile(ASTSource(_multiply, signature, constants), target=target, options=options)
    assert re.search(product, compiled.asm["ptx"]) and compiled.asm["cubin"]
    compiled = triton.compile(ASTSource(_quantise_rows, quantise, {"BLOCK": 512}), target=target, options=options)
    arithmetic = set(re.findall(r"\\b(?:fma|div|mul|add)\\.\\S*f32", compiled.asm["ptx"]))
    assert arithmetic == {"div.rn.f32", "mul.rn.f32", "add.rn.f32"}, arithmetic
"""


def run_python(*arguments: str, interpret: bool) -> None:
    """In a process of its own: triton decides when it is first imported whether it interprets."""
    pytest.importorskip("triton", reason="triton is not installed")
    environment = os.environ | {"TRITON_INTERPRET": str(int(interpret))}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.peer
def test_the_interpreter_gives_the_integer_reference() -> None:
    run_python(str(Path(__file__).with_name("triton_interpreter.py")), interpret=True)


@pytest.mark.peer
def test_it_compiles_to_integer_tensor_cores_without_approximate_arithmetic() -> None:
    run_python("-c", COMPILE, interpret=False)


def test_packing_takes_four_and_a_quarter_bits_and_can_be_undone() -> None:
    _, codes, scales, gammas, _ = make(1, 20, 256)
    packed = pack_triton_vector_linear(codes, scales, gammas)
    assert packed.nbytes * 8 == codes.numel() * 4.25
    values = packed.permute(2, 0, 1)  # (channel, step, byte)
    nibbles = torch.stack([values & 15, values >> 4], dim=2)
    assert torch.equal(nibbles[..., :64].reshape(20, 256).to(torch.int8) - 8, codes)
    assert torch.equal(nibbles[..., 64:].reshape(20, 16), scales)


def arguments() -> dict[str, Any]:
    x, codes, scales, gammas, bias = make(2, 20, 40)
    packed = pack_triton_vector_linear(codes, scales, gammas)
    return {"x": x, "packed": packed, "gammas": gammas, "bias": bias, "activation": "none"}


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("x", torch.randn(2, 40).double(), "x: has shape"),
        ("x", torch.tensor(1.0), "x: has shape"),
        ("x", torch.randn(2, 0), "x: has shape"),
        ("x", torch.randn(2, 129), "packed: has shape"),
        ("x", torch.randn(2, 40, device="meta"), "gammas: has shape"),
        ("x", torch.randn(2, 40, requires_grad=True), "requires a gradient"),
        ("packed", torch.zeros(1, 68, 19, dtype=torch.uint8), "packed: has shape"),
        ("packed", torch.zeros(1, 68, 20, dtype=torch.int8), "packed: has shape"),
        ("packed", torch.zeros(1, 68, 40, dtype=torch.uint8)[:, :, ::2], "packed: has shape"),
        ("gammas", torch.ones(20, 1), "gammas: has shape"),
        ("bias", torch.ones(20).double(), "bias: has shape"),
        ("activation", "silu", "activation: got 'silu'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(name: str, value: Any, match: str) -> None:
    with pytest.raises(KernelError, match=match) as caught:
        triton_vector_linear(**(arguments() | {name: value}))
    assert caught.value.expected


def test_without_triton_or_a_gpu_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "taut.kernels._triton_vector_linear", None)
    monkeypatch.delattr("taut.kernels._triton_vector_linear", raising=False)
    with pytest.raises(KernelError, match="triton cannot be imported"):
        triton_vector_linear(**arguments())


@pytest.mark.parametrize(
    ("place", "change", "match"),
    [
        (0, lambda codes: codes.int(), "codes: has shape"),
        (0, lambda codes: codes[0], "scales: has shape|codes: has shape"),
        (0, lambda codes: codes - 8, "codes: a value is out of range"),
        (1, lambda scales: scales[1:], "scales: has shape"),
        (1, lambda scales: scales + 16, "scales: a value is out of range"),
        (2, lambda gammas: gammas.double(), "gammas: has shape"),
        (2, lambda gammas: gammas / 0, "gammas: holds NaN or infinity"),
    ],
)
def test_codes_that_cannot_be_packed(place: int, change: Callable[[Tensor], Tensor], match: str) -> None:
    _, *given, _ = make(2, 20, 40)
    given[place] = change(given[place])
    with pytest.raises(KernelError, match=match):
        pack_triton_vector_linear(*given)
