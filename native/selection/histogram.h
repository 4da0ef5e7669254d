// Histograms of magnitudes.
#pragma once

#include <cstdint>
#include <numeric>

#include "common/parallel.h"

namespace taut {

// Adds a range of bins of `count` histograms up in the first.
inline void merge(std::uint32_t* bins, std::int64_t count, std::int64_t stride, Range range) {
    for (std::int64_t copy = 1; copy < count; ++copy) {
        for (std::int64_t bin = range.begin; bin < range.end; ++bin) bins[bin] += bins[copy * stride + bin];
    }
}

struct Place {
    std::int64_t bin;
    std::int64_t above;  // entries in higher bins
};

// The bin of the k-th largest; the bins hold at least k entries and k is not 0.
inline Place find_bin(const std::uint32_t* bins, std::int64_t count, std::int64_t k) {
    constexpr std::int64_t group = 64;  // divides every count
    std::int64_t above = 0;
    std::int64_t bin = count;
    for (std::uint32_t inside = 0; bin > 0; bin -= group, above += inside) {
        inside = std::accumulate(bins + bin - group, bins + bin, 0u);
        if (above + inside >= k) break;
    }
    for (--bin; above + bins[bin] < k; --bin) above += bins[bin];
    return {bin, above};
}

}  // namespace taut
