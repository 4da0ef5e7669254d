"""A small library of kernels, compiled once: they stand for generated ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#include <atomic>
#include <chrono>
#include <cstdint>
struct Dimension { int32_t min, extent, stride; uint32_t flags; };
struct Buffer {
    uint64_t device; const void* interface; uint8_t* host; uint64_t flags;
    uint8_t code, bits; uint16_t lanes; int32_t dimensions; Dimension* dim; void* padding;
};
static Buffer& buffer(void* argument) { return *static_cast<Buffer*>(argument); }
static float& element(Buffer& b, int row, int column) {
    return reinterpret_cast<float*>(b.host)[row * b.dim[1].stride + column * b.dim[0].stride];
}
template <class Function> static int binary(void** arguments, const Function& function) {
    Buffer& a = buffer(arguments[0]); Buffer& b = buffer(arguments[1]); Buffer& out = buffer(arguments[2]);
    for (int d = 0; d < 2; ++d)
        if (a.dim[d].extent != out.dim[d].extent || b.dim[d].extent != out.dim[d].extent) return -7;
    for (int i = 0; i < out.dim[1].extent; ++i)
        for (int j = 0; j < out.dim[0].extent; ++j) element(out, i, j) = function(element(a, i, j), element(b, i, j));
    return 0;
}
extern "C" int nothing(void**) { return 0; }
extern "C" int fails(void**) { return -3; }
extern "C" int add(void** arguments) { return binary(arguments, [](float a, float b) { return a + b; }); }
extern "C" int multiply(void** arguments) { return binary(arguments, [](float a, float b) { return a * b; }); }
// Two calls wait for each other.
static std::atomic<int> arrived{0};
extern "C" int meet(void**) {
    const int both = (arrived++ / 2 + 1) * 2;
    const auto start = std::chrono::steady_clock::now();
    while (arrived < both)
        if (std::chrono::steady_clock::now() - start > std::chrono::seconds(10)) return -5;
    return 0;
}
"""


@pytest.fixture(scope="session")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "kernels.cpp").write_text(SOURCE)
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-o", str(folder / "kernels.so")]
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run([*command, str(folder / "kernels.cpp")], check=True, env=environment)
    return folder / "kernels.so"
