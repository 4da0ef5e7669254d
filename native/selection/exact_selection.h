// The exact cut of a selection by rank, the bits of the k-th largest magnitude, and how many equal ones are taken. Short
// lists are copied and narrowed down; of longer ones a histogram of the top 16 bits gives the bin, one of the lower 15 bits
// within this bin the value.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/parallel.h"
#include "selection/histogram.h"
#include "selection/magnitude.h"
#include "selection/rank.h"
#include "selection/selection.h"

namespace taut {

// Takes the k largest of some runs in the order of their indices, with one thread a run or several runs.
class ExactSelection {
   public:
    ExactSelection(const SelectionKernels& kernels, std::vector<Candidates> runs, std::int64_t k, int threads)
        : kernels_(kernels), runs_(std::move(runs)), k_(k), threads_(threads) {}

    // Fewer than k entries are not 0, so that some zeros are taken too.
    void include_zeros(std::int64_t nonzero) {
        cut_ = 0;
        find_last_tie(k_ - nonzero);
    }

    // All entries have at least these bits.
    void find_cut(std::uint32_t least) { find_cut(runs_, at_least(least), k_); }

    // The cut is that of the k-th largest of the entries in a band, whose values are given once more.
    void find_cut(const std::vector<Candidates>& among, Band band, std::int64_t k) {
        const Rank rank = total_size(among) <= most_by_one ? find_rank(kernels_, among, band, k) : rank_counting(among, k);
        cut_ = rank.bits;
        if (rank.taken < rank.ties) find_last_tie(rank.taken);
    }

    // One thread may write over the first run.
    void collect(std::int32_t* indices, float* values) {
        std::vector<std::int64_t> starts(runs_.size() + 1, 0);
        if (threads_ > 1) {
            for_each_run(runs_, [&](std::size_t r) { starts[r + 1] = count(r); });
            for (std::size_t r = 0; r < runs_.size(); ++r) starts[r + 1] += starts[r];
        }
        for_each_run(runs_, [&](std::size_t r) {
            const std::int64_t end = threads_ > 1 ? starts[r + 1] : k_;
            Entries out{indices + starts[r], values + starts[r], end - starts[r], 0};
            const Candidates& run = runs_[r];
            const std::int64_t split = ties_until(run);
            kernels_.collect(part(run, 0, split), at_least(cut_), out);
            kernels_.collect(part(run, split, run.size), at_least(cut_ + 1), out);
            if (threads_ == 1) starts[r + 1] = starts[r] + out.count;
        });
    }

   private:
    // Up to so many entries are ranked by one thread.
    static constexpr std::int64_t most_by_one = 1 << 20;
    // Entries in which a tie is looked for at once.
    static constexpr std::int64_t chunk = 2048;

    Rank rank_counting(const std::vector<Candidates>& among, std::int64_t k) const {
        static thread_local AlignedBuffer buffer;
        const auto runs = static_cast<std::int64_t>(among.size());
        constexpr std::int64_t size = histogram_copies * magnitude_bins;
        auto* bins = reinterpret_cast<std::uint32_t*>(buffer.reserve(static_cast<std::size_t>(runs * size) * 4));
        for_each_run(among, [&](std::size_t r) {
            std::uint32_t* own = bins + static_cast<std::int64_t>(r) * size;
            std::fill_n(own, size, 0);
            kernels_.histogram(among[r].values, among[r].size, bin_shift, magnitude_bins, own);
        });
        parallel(threads_, [&](int thread, int count) {
            merge(bins, runs * histogram_copies, magnitude_bins, share(magnitude_bins, thread, count));
        });
        const Place place = find_bin(bins, magnitude_bins, k);
        const std::uint32_t inside = bins[place.bin];
        constexpr std::int64_t low_bins = 1 << bin_shift;
        for_each_run(among, [&](std::size_t r) {
            std::uint32_t* own = bins + static_cast<std::int64_t>(r) * low_bins;
            std::fill_n(own, low_bins, 0);
            kernels_.refine(among[r].values, among[r].size, static_cast<std::uint32_t>(place.bin), own);
        });
        merge(bins, runs, low_bins, {0, low_bins});
        bins[0] = inside - std::accumulate(bins + 1, bins + low_bins, 0u);
        const std::int64_t within = k - place.above;
        const Place low = find_bin(bins, low_bins, within);
        return {static_cast<std::uint32_t>(place.bin << bin_shift | low.bin), bins[low.bin], within - low.above};
    }

    template <class Body>
    void for_each_run(const std::vector<Candidates>& runs, const Body& body) const {
        parallel(threads_, [&](int thread, int count) {
            for (auto r = static_cast<std::size_t>(thread); r < runs.size(); r += static_cast<std::size_t>(count)) {
                body(r);
            }
        });
    }

    static Candidates part(const Candidates& run, std::int64_t begin, std::int64_t end) {
        return {run.values + begin, run.indices == nullptr ? nullptr : run.indices + begin, run.first + begin,
                end - begin};
    }

    static std::int64_t index(const Candidates& run, std::int64_t i) {
        return run.indices == nullptr ? run.first + i : run.indices[i];
    }

    std::int64_t count(std::size_t r) const {
        const Candidates& run = runs_[r];
        const std::int64_t split = ties_until(run);
        return kernels_.count(run.values, split, cut_) +
               kernels_.count(run.values + split, run.size - split, cut_ + 1);
    }

    // Entries of a run before this one are taken where they equal the cut, later ones only above it.
    std::int64_t ties_until(const Candidates& run) const {
        if (run.indices == nullptr) return std::clamp<std::int64_t>(last_tie_ + 1 - run.first, 0, run.size);
        return std::upper_bound(run.indices, run.indices + run.size, last_tie_) - run.indices;
    }

    void find_last_tie(std::int64_t wanted) {
        for (const Candidates& run : runs_) {
            for (std::int64_t begin = 0; begin < run.size; begin += chunk) {
                const std::int64_t size = std::min(chunk, run.size - begin);
                const float* values = run.values + begin;
                const std::int64_t equal = kernels_.count(values, size, cut_) - kernels_.count(values, size, cut_ + 1);
                if (equal < wanted) {
                    wanted -= equal;
                    continue;
                }
                std::int64_t i = 0;
                for (; wanted > 0; ++i) wanted -= magnitude_bits(values[i]) == cut_ ? 1 : 0;
                last_tie_ = index(run, begin + i - 1);
                return;
            }
        }
    }

    const SelectionKernels& kernels_;
    const std::vector<Candidates> runs_;
    const std::int64_t k_;
    const int threads_;
    std::uint32_t cut_ = 0;  // bits of the k-th largest magnitude
    std::int64_t last_tie_ = std::numeric_limits<std::int32_t>::max();  // index of the last entry that is taken at the cut
};

}  // namespace taut
