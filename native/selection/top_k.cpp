// Selection by rank. Large tensors are read once: a sample gives a bound that a few more than k entries reach, these are
// kept in passing, and the exact selection runs on them alone. If fewer than k reach it, or far too many, it runs on the
// whole tensor.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/parallel.h"
#include "selection/exact_selection.h"
#include "selection/histogram.h"
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

// A sample is counted by its top 14 bits.
constexpr int sample_shift = 17;
constexpr std::int64_t sample_bins = 1 << (31 - sample_shift);

int useful_threads(std::int64_t size, int threads) {
    return static_cast<int>(std::clamp<std::int64_t>(size / elements_per_thread, 1, threads));
}

// The bound and how many entries are likely to reach it; none where a sample is of no use.
struct Bound {
    std::uint32_t least;
    std::int64_t expected;
};

Bound sample(const SelectionKernels& kernels, const TopKCall& call) {
    const std::int64_t runs = std::min(most_sampled, call.size / 64) / sample_run;
    static thread_local AlignedBuffer buffer;
    auto* bins = reinterpret_cast<std::uint32_t*>(buffer.reserve(static_cast<std::size_t>(sample_bins + most_sampled) * 4));
    auto* taken = reinterpret_cast<float*>(bins + sample_bins);
    std::uint32_t state = 1;
    for (std::int64_t r = 0; r < runs; ++r) {
        const Range stratum{call.size * r / runs, call.size * (r + 1) / runs};
        state = state * 1664525u + 1013904223u;  // places of equal distance could meet a pattern in the tensor
        const std::int64_t at = stratum.begin + (state >> 8) % (stratum.end - stratum.begin - sample_run + 1);
        std::copy_n(call.x + at, sample_run, taken + r * sample_run);
        if (call.gradient != nullptr) kernels.add(call.gradient + at, taken + r * sample_run, sample_run);
    }
    const std::int64_t sampled = runs * sample_run;
    std::fill_n(bins, sample_bins, 0);
    kernels.histogram(taken, sampled, sample_shift, 0, bins);
    const double share = static_cast<double>(call.k) / static_cast<double>(call.size);
    const double among = share * static_cast<double>(sampled);
    const auto rank = static_cast<std::int64_t>(among + sample_deviations * std::sqrt(among) + 8.0);
    if (rank >= sampled) return {1, call.size};
    const Place place = find_bin(bins, sample_bins, rank);
    // Zeros are left out, of which sparse tensors have many.
    const std::int64_t reached = place.above + (place.bin > 0 ? bins[place.bin] : 0);
    return {std::max(static_cast<std::uint32_t>(place.bin << sample_shift), 1u), call.size / sampled * reached};
}

// Adds the gradient and keeps what reaches the bound, one run a thread. Returns how many entries do, or -1 if there is no
// room for them; the gradient is added all the same.
std::int64_t keep_candidates(const SelectionKernels& kernels, const TopKCall& call, const Bound& bound, int threads,
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
    return fits ? total : -1;
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
    std::int64_t kept = -1;
    Bound bound{0, call.size};
    if (call.k > 0 && call.k < call.size / 2 && call.size >= least_sampled) bound = sample(kernels, call);
    if (bound.expected < call.size / 2) {
        kept = keep_candidates(kernels, call, bound, threads, runs);
    } else if (call.gradient != nullptr) {
        add_gradient(kernels, call, threads);
    }
    if (call.k == 0) return;
    if (kept < call.k) {
        runs.clear();
        for (int t = 0; t < threads; ++t) {
            const Range range = share(call.size, t, threads);
            runs.push_back({call.x + range.begin, nullptr, range.begin, range.end - range.begin});
        }
    }
    ExactSelection selection(kernels, std::move(runs), call.k, threads);
    if (bound.least == 1 && kept >= 0 && kept < call.k) {
        selection.include_zeros(kept);
    } else {
        selection.find_cut();
    }
    selection.collect(call.indices, call.values);
    if (call.clear) {
        for (std::int64_t i = 0; i < call.k; ++i) call.x[call.indices[i]] = 0.0f;
    }
}

}  // namespace taut
