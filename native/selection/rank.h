// The k-th largest of a list of magnitudes.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "selection/histogram.h"
#include "selection/selection.h"

namespace taut {

struct Rank {
    std::uint32_t bits;
    std::int64_t ties;   // entries of these bits
    std::int64_t taken;  // how many of them are among the k largest
};

// Counts by the leading bits in which magnitudes of the band can differ, and goes on with the bin that holds the k-th. The
// list is not empty, and loses what is not in this bin. k is 1 to its length.
inline Rank find_rank(std::uint32_t* list, std::int64_t size, Band band, std::int64_t k) {
    constexpr int most_bits = 12;
    std::array<std::uint32_t, 1 << most_bits> bins;
    while (band.span > 1) {
        const int shift = std::max(0, static_cast<int>(std::bit_width(band.span - 1)) - most_bits);
        bins.fill(0);
        for (std::int64_t i = 0; i < size; ++i) ++bins[(list[i] - band.least) >> shift];
        const Place place = find_bin(bins.data(), bins.size(), k);
        k -= place.above;
        band = {band.least + (static_cast<std::uint32_t>(place.bin) << shift), 1u << shift};
        std::int64_t left = 0;
        for (std::int64_t i = 0; i < size; ++i) {
            const std::uint32_t bits = list[i];
            list[left] = bits;
            left += bits - band.least < band.span ? 1 : 0;
        }
        size = left;
    }
    return {band.least, size, k};
}

}  // namespace taut
