"""One thread for every run, so that equal seeds give equal bits in every process."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

# Libraries read these once, when they are loaded.
ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
}


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """One thread for torch, for the BLAS libraries that threadpoolctl knows, and for what is loaded meanwhile.

    The order of a parallel sum changes its last bits. What is loaded meanwhile keeps its one thread afterwards.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    torch: Any = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else 0
    with _single_blas_thread():
        os.environ.update(ONE_THREAD)
        if torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(threads)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _single_blas_thread() -> contextlib.AbstractContextManager[Any]:
    try:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
    except ImportError:
        return contextlib.nullcontext()
    return threadpoolctl.threadpool_limits(1)
