// The peak measurement as a dictionary.
#include "peaks/peaks.h"

#include <string>

#include "bindings/bindings.h"
#include "bindings/kernel_error.h"
#include "peaks/hand_over.h"

namespace nb = nanobind;

namespace taut {
namespace {

constexpr int max_threads = 4096;

nb::dict run(int threads) {
    if (threads < 1 || threads > max_threads) {
        throw KernelError("threads: got " + std::to_string(threads), "1 to " + std::to_string(max_threads),
                          "pass the number of cores to measure");
    }
    Peaks peaks;
    {
        nb::gil_scoped_release released;
        peaks = measure_peaks(threads);
    }
    nb::dict out;
    out["fp32"] = peaks.float32;
    if (peaks.bfloat16 > 0.0) out["bf16"] = peaks.bfloat16;
    out["int8"] = peaks.int8;
    out["l1"] = peaks.level1;
    out["l2"] = peaks.level2;
    out["l3"] = peaks.level3;
    out["dram"] = peaks.memory;
    return out;
}

nb::tuple run_hand_over() {
    HandOver found{};
    {
        nb::gil_scoped_release released;
        found = measure_hand_over();
    }
    return nb::make_tuple(found.round_trip, found.bytes_per_second);
}

}  // namespace

void bind_peaks(nb::module_& module) {
    module.def("measure_peaks", &run, nb::arg("threads"));
    module.def("measure_hand_over", &run_hand_over);
}

}  // namespace taut
