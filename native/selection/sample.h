// What a sample tells of the k-th largest magnitude.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/aligned_buffer.h"
#include "common/parallel.h"
#include "selection/histogram.h"
#include "selection/selection.h"

namespace taut {

// Below this a sample costs more than it saves.
inline constexpr std::int64_t least_sampled = 1 << 16;

// Bits between which the k-th magnitude is likely to lie, and how many entries are likely to have them.
struct Bounds {
    std::uint32_t least = 0;                // reached by k entries or a few more
    std::uint32_t certain = magnitude_end;  // reached by fewer than k; the end if the sample cannot tell
    std::int64_t kept;                      // entries that reach the least
    std::int64_t undecided;                 // and not the other

    Band band() const { return {least, certain - least}; }
};

// Looks at single cache lines. The tensor has least_sampled entries or more, and k is below half of them.
inline Bounds sample(const SelectionKernels& kernels, const TopKCall& call) {
    constexpr std::int64_t run = 16, most = 1 << 16;
    // The bounds are so many standard deviations of the sample's count away from the rank. Neighbours are alike, hence many.
    // To miss the upper one costs less.
    constexpr double low_deviations = 6.0, high_deviations = 4.0;
    const std::int64_t runs = std::min(most, call.size / 64) / run;
    const int shift = runs * run < most ? 17 : 15;  // many bins pay where many entries lie between two of them
    const std::int64_t bin_count = std::int64_t{1} << (31 - shift);
    static thread_local AlignedBuffer buffer;
    auto* bins = reinterpret_cast<std::uint32_t*>(buffer.reserve(static_cast<std::size_t>(bin_count + most + most / run) * 4));
    auto* taken = reinterpret_cast<float*>(bins + bin_count);
    auto* places = reinterpret_cast<std::uint32_t*>(taken + most);
    std::uint32_t state = 1;
    for (std::int64_t r = 0; r < runs; ++r) {
        const Range stratum{call.size * r / runs, call.size * (r + 1) / runs};
        state = state * 1664525u + 1013904223u;  // places of equal distance could meet a pattern in the tensor
        places[r] = static_cast<std::uint32_t>(stratum.begin + (state >> 8) % (stratum.end - stratum.begin - run + 1));
        __builtin_prefetch(call.x + places[r]);
        __builtin_prefetch(call.x + places[r] + run - 1);
    }
    for (std::int64_t r = 0; r < runs; ++r) {
        std::copy_n(call.x + places[r], run, taken + r * run);
        if (call.gradient != nullptr) kernels.add(call.gradient + places[r], taken + r * run, run);
    }
    const std::int64_t sampled = runs * run;
    std::fill_n(bins, bin_count, 0);
    kernels.histogram(taken, sampled, shift, 0, bins);
    const double among = static_cast<double>(call.k) / static_cast<double>(call.size) * static_cast<double>(sampled);
    const auto low_rank = static_cast<std::int64_t>(among + low_deviations * std::sqrt(among) + 8.0);
    const auto high_rank = static_cast<std::int64_t>(among - high_deviations * std::sqrt(among) - 8.0);
    const std::int64_t each = call.size / sampled;  // entries that one of the sample stands for
    Bounds bounds{.kept = call.size, .undecided = call.size};
    if (low_rank >= sampled) return bounds;
    const Place low = find_bin(bins, bin_count, low_rank);
    // Zeros are left out, of which sparse tensors have many.
    bounds.least = std::max(static_cast<std::uint32_t>(low.bin << shift), 1u);
    bounds.kept = bounds.undecided = each * (low.above + (low.bin > 0 ? bins[low.bin] : 0));
    if (high_rank > 0) {
        const Place high = find_bin(bins, bin_count, high_rank);
        bounds.certain = static_cast<std::uint32_t>(high.bin + 1) << shift;
        bounds.undecided -= each * high.above;
    }
    return bounds;
}

}  // namespace taut
