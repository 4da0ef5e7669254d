// The k-th largest of some magnitudes.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "common/aligned_buffer.h"
#include "selection/histogram.h"
#include "selection/magnitude.h"
#include "selection/selection.h"

namespace taut {

struct Rank {
    std::uint32_t bits;
    std::int64_t ties;   // entries of these bits
    std::int64_t taken;  // how many of them are among the k largest
};

inline std::int64_t total_size(const std::vector<Candidates>& runs) {
    std::int64_t total = 0;
    for (const Candidates& run : runs) total += run.size;
    return total;
}

// Counts by the leading bits in which magnitudes of the band can differ, and goes on with those in the bin that holds the
// k-th. All magnitudes of the runs are in the band, there are k or more, and they do not
// change meanwhile.
inline Rank find_rank(const SelectionKernels& kernels, std::vector<Candidates> runs, Band band, std::int64_t k) {
    constexpr int most_bits = 12;
    static thread_local AlignedBuffer buffer;
    std::array<std::uint32_t, 1 << most_bits> bins;
    std::int64_t size = total_size(runs);
    while (band.span > 1) {
        const int shift = std::max(0, static_cast<int>(std::bit_width(band.span - 1)) - most_bits);
        bins.fill(0);
        for (const Candidates& run : runs) {
            for (std::int64_t i = 0; i < run.size; ++i) ++bins[(magnitude_bits(run.values[i]) - band.least) >> shift];
        }
        const Place place = find_bin(bins.data(), bins.size(), k);
        k -= place.above;
        band = {band.least + (static_cast<std::uint32_t>(place.bin) << shift), 1u << shift};
        size = bins[place.bin];
        // A list that is in the buffer already only gets shorter.
        Entries inside{nullptr, reinterpret_cast<float*>(buffer.reserve(static_cast<std::size_t>(size) * 4)), size, 0};
        for (const Candidates& run : runs) kernels.collect(run, band, inside);
        runs = {{inside.values, nullptr, 0, size}};
    }
    return {band.least, size, k};
}

}  // namespace taut
