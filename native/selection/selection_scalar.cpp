#include "selection/elements.h"

namespace taut {
namespace {

void collect(const Candidates& from, std::uint32_t least, Entries& out) { collect_loop(from, 0, from.size, least, out); }

template <bool log>
void sum(const float* x, std::int64_t size, MomentLanes& lanes) {
    lanes = {};
    std::int32_t largest[moment_lanes] = {};
    std::int64_t nonzero[moment_lanes] = {};
    for (double& product : lanes.product) product = 1.0;
    for_each_16(x, size, [&](const float* run) {
        for (std::int64_t i = 0; i < moment_lanes; ++i) {
            const double value = std::fabs(static_cast<double>(run[i]));
            lanes.sum[i] += value;
            lanes.square[i] += value * value;
            largest[i] = std::max(largest[i], static_cast<std::int32_t>(magnitude(run[i])));
            nonzero[i] += magnitude(run[i]) != 0 ? 1 : 0;
            if constexpr (log) {
                const std::uint64_t bits = magnitude(run[i]) != 0 ? std::bit_cast<std::uint64_t>(value) : double_one;
                lanes.product[i] *= std::bit_cast<double>((bits & double_mantissa) | double_one);
                lanes.exponent[i] += static_cast<std::int64_t>(bits >> 52);
            }
        }
    });
    for (std::int64_t i = 0; i < moment_lanes; ++i) {
        lanes.count += nonzero[i];
        lanes.largest = std::max(lanes.largest, static_cast<std::uint32_t>(largest[i]));
    }
}

void moments(const float* x, std::int64_t size, bool log, MomentLanes& lanes) {
    log ? sum<true>(x, size, lanes) : sum<false>(x, size, lanes);
}

void excess(const float* x, std::int64_t size, std::uint32_t least, double threshold, MomentLanes& lanes) {
    lanes = {};
    for (std::int64_t i = 0; i < size; ++i) {
        const std::uint32_t bits = magnitude(x[i]);
        if (bits < least) continue;
        const double value = std::fabs(static_cast<double>(x[i])) - threshold;
        lanes.sum[i % moment_lanes] += value;
        lanes.square[i % moment_lanes] += value * value;
        lanes.largest = std::max(lanes.largest, bits);
        ++lanes.count;
    }
}

}  // namespace

const SelectionKernels selection_scalar = {
    add_loop, histogram_loop, refine_loop,   count_loop,   collect,       moments,
    excess,   pack_signs_loop, majority_loop, largest_loop, quantise_loop, dequantise_add_loop,
};

}  // namespace taut
