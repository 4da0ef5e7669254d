"""The Triton selection in Triton's interpreter, compiled for real instruction sets, and its refusals."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from taut.errors import KernelError
from taut.kernels import triton_select_above, triton_top_k

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from taut.kernels import _triton_selection_kernels as kernels

assert not kernels.interpreting()
count = dict(x="*fp32", bin_="*i64", bins="*i32", size="i32", LOW="constexpr", BLOCK="constexpr")
entries = dict(x="*fp32", cut="*i32", above="*i32", equal="*i32", size="i32", BLOCK="constexpr")
write = dict(x="*fp32", cut="*i32", ties="*i32", starts="*i32", equal_before="*i32", indices="*i32", values="*fp32",
             capacity="i32", size="i32", CLEAR="constexpr", BLOCK="constexpr")
for capability in (80, 90):
    target = GPUTarget("cuda", capability, 32)
    for kernel, signature, constants in (
        (kernels._count_bins, count, {"LOW": True, "BLOCK": 1024}),
        (kernels._count_bins, count, {"LOW": False, "BLOCK": 1024}),
        (kernels._count_entries, entries, {"BLOCK": 1024}),
        (kernels._write_entries, write, {"CLEAR": True, "BLOCK": 1024}),
    ):
        assert triton.compile(ASTSource(kernel, signature, constants), target=target).asm["cubin"]
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
def test_the_interpreter_selects_what_the_cpu_does() -> None:
    run_python(str(Path(__file__).with_name("triton_selection_interpreter.py")), interpret=True)


@pytest.mark.peer
def test_it_compiles() -> None:
    run_python("-c", COMPILE, interpret=False)


X = torch.randn(40)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: triton_top_k([1.0], 1), "x: is list"),  # pyright: ignore[reportArgumentType]
        (lambda: triton_top_k(X.double(), 1), "x: is torch.float64"),
        (lambda: triton_top_k(X.view(5, 8).T, 1), "x: is torch.float32"),
        (lambda: triton_top_k(X, 41), "k: got 41"),
        (lambda: triton_top_k(X.clone().requires_grad_(), 1), "gradient"),
        (lambda: triton_select_above(X.half(), 1.0, 1), "residual: is torch.float16"),
        (lambda: triton_select_above(X, -1.0, 1), "threshold: got -1"),
        (lambda: triton_select_above(X, float("nan"), 1), "threshold: got nan"),
        (lambda: triton_select_above(X, 1.0, -1), "capacity: got -1"),
    ],
)
def test_refusals(call: Callable[[], object], text: str) -> None:
    with pytest.raises(KernelError, match=text):
        call()


def test_without_triton_or_a_gpu_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "taut.kernels._triton_selection_kernels", None)
    with pytest.raises(KernelError, match="triton cannot be imported"):
        triton_top_k(X, 1)
