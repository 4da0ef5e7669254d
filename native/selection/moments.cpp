// Moments of magnitudes, block by block: sums of blocks are kept apart and added in order.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/parallel.h"
#include "selection/magnitude.h"
#include "selection/selection.h"

namespace taut {
namespace {

constexpr std::int64_t blocks_per_thread = 16;
constexpr int double_bias = 1023;

struct BlockSums {
    double sum;
    double square;
    double log;
    std::int64_t count;
    std::uint32_t largest;
};

double add_lanes(const double (&lanes)[moment_lanes]) {
    double half[moment_lanes / 2];
    for (std::int64_t i = 0; i < moment_lanes / 2; ++i) half[i] = lanes[i] + lanes[i + moment_lanes / 2];
    return ((half[0] + half[4]) + (half[2] + half[6])) + ((half[1] + half[5]) + (half[3] + half[7]));
}

// The sum of the logarithms of the elements that were taken; the others count as 1.
double add_logarithms(const MomentLanes& lanes, std::int64_t elements) {
    const std::int64_t padded = (elements + moment_lanes - 1) / moment_lanes * moment_lanes;
    std::int64_t exponent = -double_bias * padded;
    double product = 1.0;
    for (std::int64_t i = 0; i < moment_lanes; ++i) {
        int own = 0;
        product *= std::frexp(lanes.product[i], &own);
        exponent += lanes.exponent[i] + own;
    }
    return std::log(product) + static_cast<double>(exponent) * std::numbers::ln2;
}

BlockSums add_up(const MomentLanes& lanes, std::int64_t elements, bool log) {
    return {add_lanes(lanes.sum), add_lanes(lanes.square), log ? add_logarithms(lanes, elements) : 0.0, lanes.count,
            lanes.largest};
}

// Runs body(begin, size, sums, thread) for each block and adds up the sums.
template <class Body>
BlockSums for_each_block(std::int64_t size, int threads, const Body& body) {
    const std::int64_t blocks = (size + moment_block - 1) / moment_block;
    std::vector<BlockSums> sums(static_cast<std::size_t>(blocks));
    parallel(threads, [&](int thread, int count) {
        const Range range = share(blocks, thread, count);
        for (std::int64_t block = range.begin; block < range.end; ++block) {
            const std::int64_t begin = block * moment_block;
            body(begin, std::min(moment_block, size - begin), sums[static_cast<std::size_t>(block)], thread);
        }
    });
    BlockSums total{};
    for (const BlockSums& block : sums) {
        total.sum += block.sum;
        total.square += block.square;
        total.log += block.log;
        total.count += block.count;
        total.largest = std::max(total.largest, block.largest);
    }
    return total;
}

int useful_threads(std::int64_t size, int threads) {
    return static_cast<int>(std::clamp<std::int64_t>(size / (moment_block * blocks_per_thread), 1, threads));
}

double ratio(double sum, std::int64_t count) { return count == 0 ? 0.0 : sum / static_cast<double>(count); }

// The mantissas of infinity and NaN look like those of numbers.
double mean_log(const BlockSums& sums) {
    if (sums.largest > infinite_bits) return std::numeric_limits<double>::quiet_NaN();
    if (sums.largest == infinite_bits) return std::numeric_limits<double>::infinity();
    return ratio(sums.log, sums.count);
}

}  // namespace

Moments accumulate_moments(const float* gradient, float* x, std::int64_t size, bool log, std::int32_t* bins,
                           int threads) {
    const SelectionKernels& kernels = selection_kernels();
    threads = useful_threads(size, threads);
    constexpr std::int64_t copy = histogram_copies * magnitude_bins;
    static thread_local AlignedBuffer buffer;
    std::uint32_t* copies = nullptr;
    if (bins != nullptr) {
        const std::int64_t counters = copy * threads;
        copies = reinterpret_cast<std::uint32_t*>(buffer.reserve(static_cast<std::size_t>(counters) * 4));
        std::fill_n(copies, counters, 0);
    }
    const auto sum_block = [&](std::int64_t begin, std::int64_t count, BlockSums& block, int thread) {
        MomentLanes lanes;
        if (gradient != nullptr) kernels.add(gradient + begin, x + begin, count);
        kernels.moments(x + begin, count, 1, 0.0, log, lanes);
        if (bins != nullptr) kernels.histogram(x + begin, count, bin_shift, magnitude_bins, copies + thread * copy);
        block = add_up(lanes, count, log);
    };
    const BlockSums sums = for_each_block(size, threads, sum_block);
    if (bins != nullptr) {
        for (std::int64_t bin = 0; bin < magnitude_bins; ++bin) {
            std::uint32_t counted = 0;
            for (std::int64_t c = 0; c < threads * histogram_copies; ++c) counted += copies[c * magnitude_bins + bin];
            bins[bin] = static_cast<std::int32_t>(counted);
        }
    }
    return {size,
            ratio(sums.sum, size),
            ratio(sums.square, size),
            log ? mean_log(sums) : std::numeric_limits<double>::quiet_NaN(),
            static_cast<double>(std::bit_cast<float>(sums.largest)),
            sums.count};
}

Moments exceedance_moments(const float* x, std::int64_t size, double threshold, bool log, int threads) {
    const SelectionKernels& kernels = selection_kernels();
    const std::uint32_t least = bits_above(threshold);
    const auto sum_block = [&](std::int64_t begin, std::int64_t count, BlockSums& block, int) {
        MomentLanes lanes;
        kernels.moments(x + begin, count, least, threshold, log, lanes);
        block = add_up(lanes, count, log);
    };
    const BlockSums sums = for_each_block(size, useful_threads(size, threads), sum_block);
    const double largest = static_cast<double>(std::bit_cast<float>(sums.largest));
    return {sums.count,
            ratio(sums.sum, sums.count),
            ratio(sums.square, sums.count),
            log ? mean_log(sums) : std::numeric_limits<double>::quiet_NaN(),
            sums.count == 0 ? 0.0 : largest - threshold,
            sums.count};
}

}  // namespace taut
