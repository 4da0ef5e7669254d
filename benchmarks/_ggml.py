"""ggml's Q4_0 matrix product through its C interface, as a peer: weights repacked for the host, one operator a graph.

Needs the shared libraries `libggml-base.so` and `libggml-cpu.so` of a build of llama.cpp (its own build for the host,
GGML_NATIVE=ON), in the folder that `--ggml` or TAUT_GGML names.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

_FLOAT32, _Q4_0 = 0, 2
_POINTER = ctypes.c_void_p
_GRAPH_BYTES = 1 << 20


class _InitParameters(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Ggml:
    """The two libraries of a build.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        mode = ctypes.RTLD_GLOBAL
        self._base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=mode)
        self._cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), mode=mode)
        self._call("ggml_cpu_init", None)()

    def _call(self, name: str, result: type | None, *arguments: type) -> Callable:
        function = getattr(self._base if hasattr(self._base, name) else self._cpu, name)
        function.restype, function.argtypes = result, arguments
        return function

    def _context(self) -> int:
        start = self._call("ggml_init", _POINTER, _InitParameters)
        return start(_InitParameters(_GRAPH_BYTES, None, True))

    def _repacking(self, backend: int) -> int:
        """The kind of buffer that lays weights out for the host's instructions."""
        device = self._call("ggml_backend_get_device", _POINTER, _POINTER)(backend)
        registry = self._call("ggml_backend_dev_backend_reg", _POINTER, _POINTER)(device)
        find = self._call("ggml_backend_reg_get_proc_address", _POINTER, _POINTER, ctypes.c_char_p)
        address = find(registry, b"ggml_backend_dev_get_extra_bufts")
        extra = ctypes.CFUNCTYPE(ctypes.POINTER(_POINTER), _POINTER)(address)(device)
        name = self._call("ggml_backend_buft_name", ctypes.c_char_p, _POINTER)
        for kind in extra:
            if not kind:
                break
            if b"REPACK" in name(kind):
                return kind
        raise RuntimeError("this build of ggml does not repack Q4_0 for this host")

    def linear(self, quantised: bytes, x: Tensor, channels: int, threads: int) -> tuple[Callable[[], None], Tensor]:
        """A call that computes x @ W.T, activations quantised inside, and the tensor its result is in.

        Args:
            quantised: the weight (channels, depth) as Q4_0 blocks.
            x: (rows, depth) float32, copied now.
            channels: rows of the weight.
            threads: to run on.
        """
        rows, depth = x.shape
        backend = self._call("ggml_backend_cpu_init", _POINTER)()
        self._call("ggml_backend_cpu_set_n_threads", None, _POINTER, ctypes.c_int)(backend, threads)
        new = self._call("ggml_new_tensor_2d", _POINTER, _POINTER, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        fill = self._call("ggml_backend_tensor_set", None, _POINTER, _POINTER, ctypes.c_size_t, ctypes.c_size_t)
        held = self._context()
        weight = new(held, _Q4_0, depth, channels)
        place = self._call("ggml_backend_alloc_ctx_tensors_from_buft", _POINTER, _POINTER, _POINTER)
        place(held, self._repacking(backend))
        fill(weight, quantised, 0, len(quantised))

        computed = self._context()
        given = new(computed, _FLOAT32, depth, rows)
        product = self._call("ggml_mul_mat", _POINTER, _POINTER, _POINTER, _POINTER)(computed, weight, given)
        graph = self._call("ggml_new_graph", _POINTER, _POINTER)(computed)
        self._call("ggml_build_forward_expand", None, _POINTER, _POINTER)(graph, product)
        kind = self._call("ggml_backend_cpu_buffer_type", _POINTER)()
        self._call("ggml_backend_alloc_ctx_tensors_from_buft", _POINTER, _POINTER, _POINTER)(computed, kind)
        x = x.contiguous()
        fill(given, x.data_ptr(), 0, x.numel() * 4)
        run = self._call("ggml_backend_graph_compute", ctypes.c_int, _POINTER, _POINTER)
        address = self._call("ggml_get_data", _POINTER, _POINTER)(product)
        memory = (ctypes.c_float * (rows * channels)).from_address(address)
        return lambda: run(backend, graph), torch.frombuffer(memory, dtype=torch.float32).view(rows, channels)
