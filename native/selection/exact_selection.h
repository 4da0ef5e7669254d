// The exact cut of a selection by rank. A histogram of the top 16 bits of magnitudes gives the bin of the k-th largest, one
// of the lower 15 bits within this bin its value, and how many equal ones are taken.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/parallel.h"
#include "selection/histogram.h"
#include "selection/magnitude.h"
#include "selection/selection.h"

namespace taut {

// Takes the k largest of some runs, with one thread a run or several runs.
class ExactSelection {
   public:
    ExactSelection(const SelectionKernels& kernels, std::vector<Candidates> runs, std::int64_t k, int threads)
        : kernels_(kernels), runs_(std::move(runs)), k_(k), threads_(threads), last_run_(runs_.size()) {}

    // Fewer than k entries are not 0, so that some zeros are taken too.
    void include_zeros(std::int64_t nonzero) {
        cut_ = 0;
        find_last_tie(k_ - nonzero);
    }

    void find_cut() {
        std::int64_t total = 0;
        for (const Candidates& run : runs_) total += run.size;
        total <= most_sorted ? find_cut_sorting(total) : find_cut_counting(total);
    }

    void collect(std::int32_t* indices, float* values) {
        std::vector<std::int64_t> starts(runs_.size() + 1, 0);
        if (runs_.size() > 1) {
            for_each_run([&](std::size_t r) { starts[r + 1] = count(r); });
            for (std::size_t r = 0; r < runs_.size(); ++r) starts[r + 1] += starts[r];
        } else {
            starts.back() = k_;
        }
        for_each_run([&](std::size_t r) {
            Entries out{indices + starts[r], values + starts[r], starts[r + 1] - starts[r], 0};
            const Candidates& run = runs_[r];
            const std::int64_t split = ties_until(r);
            kernels_.collect(part(run, 0, split), cut_, out);
            kernels_.collect(part(run, split, run.size), cut_ + 1, out);
        });
    }

   private:
    // Up to so many entries are sorted in place of being counted.
    static constexpr std::int64_t most_sorted = 1 << 12;
    // From so many entries on the copies of a histogram pay.
    static constexpr std::int64_t least_copied = 1 << 20;
    // Entries in which a tie is looked for at once.
    static constexpr std::int64_t chunk = 2048;

    void find_cut_sorting(std::int64_t total) {
        std::vector<std::uint32_t> bits;
        bits.reserve(static_cast<std::size_t>(total));
        for (const Candidates& run : runs_) {
            for (std::int64_t i = 0; i < run.size; ++i) bits.push_back(magnitude_bits(run.values[i]));
        }
        const auto last = bits.begin() + (k_ - 1);
        std::nth_element(bits.begin(), last, bits.end(), std::greater<>());
        take_ties(*last, k_ - std::count_if(bits.begin(), last, [&](std::uint32_t other) { return other > *last; }),
                  std::count(bits.begin(), bits.end(), *last));
    }

    void find_cut_counting(std::int64_t total) {
        static thread_local AlignedBuffer buffer;
        const auto runs = static_cast<std::int64_t>(runs_.size());
        const std::int64_t copies = total < least_copied ? 1 : histogram_copies;
        const std::int64_t size = copies * magnitude_bins;
        auto* bins = reinterpret_cast<std::uint32_t*>(buffer.reserve(static_cast<std::size_t>(runs * size) * 4));
        for_each_run([&](std::size_t r) {
            std::uint32_t* own = bins + static_cast<std::int64_t>(r) * size;
            std::fill_n(own, size, 0);
            kernels_.histogram(runs_[r].values, runs_[r].size, bin_shift, copies == 1 ? 0 : magnitude_bins, own);
        });
        parallel(threads_, [&](int thread, int count) {
            merge(bins, runs * copies, magnitude_bins, share(magnitude_bins, thread, count));
        });
        const Place place = find_bin(bins, magnitude_bins, k_);
        const std::uint32_t inside = bins[place.bin];
        constexpr std::int64_t low_bins = 1 << bin_shift;
        for_each_run([&](std::size_t r) {
            std::uint32_t* own = bins + static_cast<std::int64_t>(r) * low_bins;
            std::fill_n(own, low_bins, 0);
            kernels_.refine(runs_[r].values, runs_[r].size, static_cast<std::uint32_t>(place.bin), own);
        });
        merge(bins, runs, low_bins, {0, low_bins});
        bins[0] = inside - std::accumulate(bins + 1, bins + low_bins, 0u);
        const std::int64_t within = k_ - place.above;
        const Place low = find_bin(bins, low_bins, within);
        take_ties(static_cast<std::uint32_t>(place.bin << bin_shift | low.bin), within - low.above, bins[low.bin]);
    }

    // Sets the cut, of whose `ties` entries so many are taken.
    void take_ties(std::uint32_t cut, std::int64_t taken, std::int64_t ties) {
        cut_ = cut;
        if (taken < ties) find_last_tie(taken);
    }

    template <class Body>
    void for_each_run(const Body& body) {
        parallel(threads_, [&](int thread, int count) {
            for (auto r = static_cast<std::size_t>(thread); r < runs_.size(); r += static_cast<std::size_t>(count)) {
                body(r);
            }
        });
    }

    static Candidates part(const Candidates& run, std::int64_t begin, std::int64_t end) {
        return {run.values + begin, run.indices == nullptr ? nullptr : run.indices + begin, run.first + begin,
                end - begin};
    }

    std::int64_t count(std::size_t r) const {
        const Candidates& run = runs_[r];
        const std::int64_t split = ties_until(r);
        return kernels_.count(run.values, split, cut_) +
               kernels_.count(run.values + split, run.size - split, cut_ + 1);
    }

    // Entries of a run before this one are taken where they equal the cut, later ones only above it.
    std::int64_t ties_until(std::size_t r) const {
        return r < last_run_ ? runs_[r].size : r == last_run_ ? last_end_ : 0;
    }

    // Sets the place behind the last tie that is taken.
    void find_last_tie(std::int64_t wanted) {
        for (std::size_t r = 0; r < runs_.size(); ++r) {
            const Candidates& run = runs_[r];
            for (std::int64_t begin = 0; begin < run.size; begin += chunk) {
                const std::int64_t size = std::min(chunk, run.size - begin);
                const float* values = run.values + begin;
                const std::int64_t equal = kernels_.count(values, size, cut_) - kernels_.count(values, size, cut_ + 1);
                if (equal < wanted) {
                    wanted -= equal;
                    continue;
                }
                std::int64_t i = 0;
                for (; wanted > 0; ++i) {
                    wanted -= kernels_.count(values + i, 1, cut_) - kernels_.count(values + i, 1, cut_ + 1);
                }
                last_run_ = r;
                last_end_ = begin + i;
                return;
            }
        }
    }

    const SelectionKernels& kernels_;
    const std::vector<Candidates> runs_;
    const std::int64_t k_;
    const int threads_;
    std::uint32_t cut_ = 0;  // bits of the k-th largest magnitude
    std::size_t last_run_;  // the number of runs where every tie is taken
    std::int64_t last_end_ = 0;
};

}  // namespace taut
