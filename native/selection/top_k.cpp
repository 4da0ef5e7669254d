// Exact selection by rank. The histogram of a magnitude's top 16 bits gives the bin of the k-th largest, that of the
// lower 15 bits within this bin its exact value and how many equal ones are taken.
//
// Large tensors are read once: a sample gives a bound that a few more than k entries reach, these are kept in passing,
// and the exact selection runs on them alone. If fewer than k reach it, or far too many, it runs on the whole tensor.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/parallel.h"
#include "selection/selection.h"

namespace taut {
namespace {

// Elements of a chunk that stays in the first-level cache between adding the gradient and looking at the sum.
constexpr std::int64_t chunk = 2048;
constexpr std::int64_t elements_per_thread = 1 << 16;
// Below this a sample costs more than it saves.
constexpr std::int64_t least_sampled = 1 << 16;
constexpr std::int64_t sample_run = 16;
constexpr std::int64_t most_sampled = 1 << 16;
// The bound is so many standard deviations of the sample's count below the rank. Neighbours are alike, hence many.
constexpr double sample_deviations = 6.0;

constexpr std::int64_t histogram_size = histogram_copies * magnitude_bins;

int useful_threads(std::int64_t size, int threads) {
    return static_cast<int>(std::clamp<std::int64_t>(size / elements_per_thread, 1, threads));
}

// Adds up the copies of `count` histograms in the first, from `begin` to `end`.
void merge(std::uint32_t* bins, std::int64_t count, Range range) {
    for (std::int64_t copy = 1; copy < count; ++copy) {
        for (std::int64_t bin = range.begin; bin < range.end; ++bin) bins[bin] += bins[copy * magnitude_bins + bin];
    }
}

struct Place {
    std::int64_t bin;
    std::int64_t above;  // entries in higher bins
};

// The bin of the k-th largest; the bins hold at least k entries and k is not 0.
Place find_bin(const std::uint32_t* bins, std::int64_t count, std::int64_t k) {
    std::int64_t above = 0;
    std::int64_t bin = count - 1;
    while (above + bins[bin] < k) above += bins[bin--];
    return {bin, above};
}

// Takes the k largest of some runs, with one thread a run or several runs.
class Selection {
   public:
    Selection(const SelectionKernels& kernels, std::vector<Candidates> runs, std::int64_t k, int threads)
        : kernels_(kernels), runs_(std::move(runs)), k_(k), threads_(threads) {}

    void run(std::int32_t* indices, float* values) {
        find_cut();
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

    void find_cut() {
        static thread_local AlignedBuffer buffer;
        const std::size_t runs = runs_.size();
        const std::size_t bytes = runs * histogram_size * sizeof(std::uint32_t);
        auto* bins = reinterpret_cast<std::uint32_t*>(buffer.reserve(bytes));
        for_each_run([&](std::size_t r) {
            std::uint32_t* own = bins + r * histogram_size;
            std::fill_n(own, histogram_size, 0);
            kernels_.histogram(runs_[r].values, runs_[r].size, own);
        });
        parallel(threads_, [&](int thread, int count) {
            merge(bins, static_cast<std::int64_t>(runs) * histogram_copies, share(magnitude_bins, thread, count));
        });
        const Place place = find_bin(bins, magnitude_bins, k_);
        for_each_run([&](std::size_t r) {
            std::uint32_t* own = bins + r * magnitude_bins;
            std::fill_n(own, magnitude_bins, 0);
            kernels_.refine(runs_[r].values, runs_[r].size, static_cast<std::uint32_t>(place.bin), own);
        });
        merge(bins, static_cast<std::int64_t>(runs), {0, 1 << bin_shift});
        const std::int64_t within = k_ - place.above;
        const Place low = find_bin(bins, 1 << bin_shift, within);
        cut_ = static_cast<std::uint32_t>(place.bin << bin_shift | low.bin);
        const std::int64_t ties = bins[low.bin];
        last_run_ = runs;
        if (within - low.above < ties) find_last_tie(within - low.above);
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
    std::size_t last_run_ = 0;
    std::int64_t last_end_ = 0;
};

// The bound and how many entries are likely to reach it; none where a sample is of no use.
struct Bound {
    std::uint32_t least;
    std::int64_t expected;
};

Bound sample(const SelectionKernels& kernels, const TopKCall& call) {
    const std::int64_t runs = std::min(most_sampled, call.size / 64) / sample_run;
    static thread_local AlignedBuffer buffer;
    auto* bins = reinterpret_cast<std::uint32_t*>(
        buffer.reserve(static_cast<std::size_t>(histogram_size) * 4 + static_cast<std::size_t>(most_sampled) * 4));
    auto* taken = reinterpret_cast<float*>(bins + histogram_size);
    std::uint32_t state = 1;
    for (std::int64_t r = 0; r < runs; ++r) {
        const Range stratum{call.size * r / runs, call.size * (r + 1) / runs};
        state = state * 1664525u + 1013904223u;  // places of equal distance could meet a pattern in the tensor
        const std::int64_t at = stratum.begin + (state >> 8) % (stratum.end - stratum.begin - sample_run + 1);
        std::copy_n(call.x + at, sample_run, taken + r * sample_run);
        if (call.gradient != nullptr) kernels.add(call.gradient + at, taken + r * sample_run, sample_run);
    }
    const std::int64_t sampled = runs * sample_run;
    std::fill_n(bins, histogram_size, 0);
    kernels.histogram(taken, sampled, bins);
    merge(bins, histogram_copies, {0, magnitude_bins});
    const double share = static_cast<double>(call.k) / static_cast<double>(call.size);
    const double among = share * static_cast<double>(sampled);
    const auto rank = static_cast<std::int64_t>(among + sample_deviations * std::sqrt(among) + 8.0);
    if (rank >= sampled) return {0, call.size};
    const Place place = find_bin(bins, magnitude_bins, rank);
    const double reached = static_cast<double>(place.above + bins[place.bin]) / static_cast<double>(sampled);
    return {static_cast<std::uint32_t>(place.bin << bin_shift),
            static_cast<std::int64_t>(reached * static_cast<double>(call.size))};
}

// Adds the gradient and keeps what reaches the bound, one run a thread. Returns false if that is not enough, or more than
// there is room for; the gradient is added all the same.
bool keep_candidates(const SelectionKernels& kernels, const TopKCall& call, const Bound& bound, int threads,
                     std::vector<Candidates>& runs) {
    static thread_local AlignedBuffer buffer;
    const std::int64_t room = std::min(call.size, bound.expected * 3 / (2 * threads) + (1 << 14));
    std::uint8_t* memory = buffer.reserve(static_cast<std::size_t>(threads * room) * 8);
    std::vector<Entries> kept;
    for (int t = 0; t < threads; ++t) {
        std::uint8_t* own = memory + t * room * 8;
        kept.push_back({reinterpret_cast<std::int32_t*>(own), reinterpret_cast<float*>(own + room * 4), room, 0});
    }
    parallel(threads, [&](int thread, int count) {
        for (int t = thread; t < threads; t += count) {
            const Range range = share(call.size, t, threads);
            for (std::int64_t begin = range.begin; begin < range.end; begin += chunk) {
                const std::int64_t size = std::min(chunk, range.end - begin);
                if (call.gradient != nullptr) kernels.add(call.gradient + begin, call.x + begin, size);
                kernels.collect({call.x + begin, nullptr, begin, size}, bound.least, kept[t]);
            }
        }
    });
    std::int64_t total = 0;
    bool fits = true;
    for (const Entries& entries : kept) {
        runs.push_back({entries.values, entries.indices, 0, entries.count});
        total += entries.count;
        fits = fits && entries.count <= room;
    }
    return fits && total >= call.k;
}

void add_gradient(const SelectionKernels& kernels, const TopKCall& call, int threads) {
    parallel(threads, [&](int thread, int count) {
        const Range range = share(call.size, thread, count);
        kernels.add(call.gradient + range.begin, call.x + range.begin, range.end - range.begin);
    });
}

}  // namespace

void top_k(const TopKCall& call, int threads) {
    const SelectionKernels& kernels = selection_kernels();
    threads = useful_threads(call.size, threads);
    std::vector<Candidates> runs;
    bool enough = false, added = call.gradient == nullptr;
    if (call.k > 0 && call.size >= least_sampled && call.k < call.size / 2) {
        const Bound bound = sample(kernels, call);
        if (bound.expected < call.size / 2) {
            enough = keep_candidates(kernels, call, bound, threads, runs);
            added = true;
        }
    }
    if (!added) add_gradient(kernels, call, threads);
    if (call.k == 0) return;
    if (!enough) {
        runs.clear();
        for (int t = 0; t < threads; ++t) {
            const Range range = share(call.size, t, threads);
            runs.push_back({call.x + range.begin, nullptr, range.begin, range.end - range.begin});
        }
    }
    Selection(kernels, std::move(runs), call.k, threads).run(call.indices, call.values);
    if (call.clear) {
        for (std::int64_t i = 0; i < call.k; ++i) call.x[call.indices[i]] = 0.0f;
    }
}

}  // namespace taut
