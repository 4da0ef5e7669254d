// Times the loops: the best of many short bursts, because a peak is what the host reaches when nothing interferes.
#include "peaks/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "peaks/cache_sizes.h"

namespace taut {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double burst_seconds = 0.0005;
constexpr double loop_seconds = 0.12;
constexpr std::size_t read_granule = 1024;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

const PeakLoops& loops_of(Isa isa) {
#ifdef TAUT_X86
    if (isa == Isa::avx512_vnni) return peak_loops_avx512_vnni;
    if (isa == Isa::avx2) return peak_loops_avx2;
#endif
    (void)isa;
    return peak_loops_scalar;
}

// How many rounds of work(rounds) take a burst on one thread.
template <class Work>
std::int64_t rounds_of_burst(const Work& work) {
    for (std::int64_t rounds = 1;; rounds *= 2) {
        const Clock::time_point start = Clock::now();
        work(rounds);
        if (seconds_since(start) > burst_seconds / 2) return rounds;
    }
}

// Seconds from the first start to the last end of work(thread, count) on every thread at once; `team` is how many.
template <class Work>
double burst(int threads, int& team, const Work& work) {
    std::vector<Clock::time_point> starts(threads);
    std::vector<Clock::time_point> ends(threads);
    std::atomic<int> arrived{0};
    parallel(threads, [&](int thread, int count) {
        if (thread == 0) team = count;
        // Spinning, because threads that a barrier has to wake would start at different times.
        for (arrived.fetch_add(1); arrived.load() < count;) {
        }
        starts[thread] = Clock::now();
        work(thread, count);
        ends[thread] = Clock::now();
    });
    const auto first = *std::min_element(starts.begin(), starts.begin() + team);
    const auto last = *std::max_element(ends.begin(), ends.begin() + team);
    return std::chrono::duration<double>(last - first).count();
}

// Best rate of work(thread, count, rounds), which does rounds * amount(count) units in all threads together.
template <class Work, class Amount>
double best_rate(int threads, const Work& work, const Amount& amount) {
    const Clock::time_point start = Clock::now();
    int team = 1;
    burst(threads, team, [](int, int) {});
    const std::int64_t rounds = rounds_of_burst([&](std::int64_t count) { work(0, team, count); });
    double best = 0.0;
    do {
        const double elapsed = burst(threads, team, [&](int thread, int count) { work(thread, count, rounds); });
        best = std::max(best, static_cast<double>(rounds) * amount(team) / elapsed);
    } while (seconds_since(start) < loop_seconds);
    return best;
}

double arithmetic_rate(int threads, const ArithmeticLoop& loop) {
    const auto work = [&](int, int, std::int64_t rounds) { loop.run(rounds * 1000); };
    return best_rate(threads, work, [&](int count) { return 1000 * loop.operations_per_round * count; });
}

// Each thread reads its own part of `data` again and again; together they read `bytes` a round.
double read_rate(int threads, const PeakLoops& loops, const std::uint8_t* data, std::size_t bytes) {
    const auto part = [&](int count) {
        return std::max(bytes / static_cast<std::size_t>(count) / read_granule, std::size_t{1}) * read_granule;
    };
    const auto work = [&](int thread, int count, std::int64_t rounds) {
        for (std::int64_t round = 0; round < rounds; ++round) loops.read(data + thread * part(count), part(count));
    };
    return best_rate(threads, work, [&](int count) { return static_cast<double>(part(count)) * count; });
}

}  // namespace

Peaks measure_peaks(int threads) {
    const PeakLoops& loops = loops_of(active_isa());
    const CacheSizes caches = cache_sizes();
    // Large enough that a round cannot live in the last cache; capped for hosts with gigabytes of it.
    const std::size_t memory_bytes =
        std::max(std::min(4 * caches.level3, std::size_t{1} << 30), threads * 4 * caches.level2);
    AlignedBuffer buffer;
    std::uint8_t* data = buffer.reserve(memory_bytes);
    parallel(threads, [&](int thread, int count) {
        const Range range = share(static_cast<std::int64_t>(memory_bytes), thread, count);
        std::memset(data + range.begin, 1, static_cast<std::size_t>(range.end - range.begin));
    });

    Peaks peaks{};
    peaks.float32 = arithmetic_rate(threads, loops.float32);
    peaks.int8 = arithmetic_rate(threads, loops.int8);
#ifdef TAUT_X86
    if (active_isa() == Isa::avx512_vnni && avx512_bf16_available()) {
        peaks.bfloat16 = arithmetic_rate(threads, peak_bfloat16_avx512);
    }
#endif
    // Private caches grow with the threads, the shared one does not.
    peaks.level1 = read_rate(threads, loops, data, threads * caches.level1 / 2);
    peaks.level2 = read_rate(threads, loops, data, threads * caches.level2 / 2);
    peaks.level3 = read_rate(threads, loops, data, std::max(caches.level3 / 2, threads * caches.level2 * 2));
    peaks.memory = read_rate(threads, loops, data, memory_bytes);
    return peaks;
}

}  // namespace taut
