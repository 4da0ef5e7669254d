#include "selection/elements.h"

namespace taut {
namespace {

void collect(const Candidates& from, Band band, Entries& out) { collect_loop(from, 0, from.size, band, out); }

template <bool log>
void sum(const float* x, std::int64_t size, std::uint32_t least, double threshold, MomentLanes& lanes) {
    lanes = {};
    std::int32_t largest[moment_lanes] = {};
    std::int64_t counts[moment_lanes] = {};
    for (double& product : lanes.product) product = 1.0;
    for_each_16(x, size, [&](const float* run) {
        for (std::int64_t i = 0; i < moment_lanes; ++i) {
            const bool above = magnitude(run[i]) >= least;
            const double value = std::fabs(static_cast<double>(run[i]));
            const double excess = above ? value - threshold : 0.0;
            lanes.sum[i] += excess;
            lanes.square[i] += excess * excess;
            largest[i] = std::max(largest[i], above ? static_cast<std::int32_t>(magnitude(run[i])) : 0);
            counts[i] += above ? 1 : 0;
            if constexpr (log) {
                const std::uint64_t bits = above ? std::bit_cast<std::uint64_t>(value) : double_one;
                lanes.product[i] *= std::bit_cast<double>((bits & double_mantissa) | double_one);
                lanes.exponent[i] += static_cast<std::int64_t>(bits >> 52);
            }
        }
    });
    for (std::int64_t i = 0; i < moment_lanes; ++i) {
        lanes.count += counts[i];
        lanes.largest = std::max(lanes.largest, static_cast<std::uint32_t>(largest[i]));
    }
}

void moments(const float* x, std::int64_t size, std::uint32_t least, double threshold, bool log, MomentLanes& lanes) {
    log ? sum<true>(x, size, least, threshold, lanes) : sum<false>(x, size, least, threshold, lanes);
}

}  // namespace

const SelectionKernels selection_scalar = {
    add_loop,        histogram_loop, refine_loop,  count_loop,    collect,             moments,
    pack_signs_loop, majority_loop,  largest_loop, quantise_loop, dequantise_add_loop,
};

}  // namespace taut
