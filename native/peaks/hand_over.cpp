#include "peaks/hand_over.h"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "common/pause.h"

namespace taut {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int rounds = 1000;
constexpr int stop = -1;
constexpr std::chrono::milliseconds most{200};  // where other work takes the cores
constexpr std::size_t words = 8192;             // 64 KiB: more than the first cache level holds of it

struct Shared {
    alignas(64) std::atomic<int> asked{0};
    alignas(64) std::atomic<int> answered{0};
    alignas(64) std::atomic<bool> writes{false};
    alignas(64) std::size_t data[words] = {};
};

// The first two cores that this process may use, as far as that is known.
std::vector<std::size_t> two_cores() {
    std::vector<std::size_t> cores;
#ifdef __linux__
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return cores;
    for (std::size_t core = 0; core < CPU_SETSIZE && cores.size() < 2; ++core) {
        if (CPU_ISSET(core, &allowed)) cores.push_back(core);
    }
#endif
    return cores;
}

void pin(std::size_t core) {
#ifdef __linux__
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set, &set);
#else
    (void)core;
#endif
}

void answer(Shared& shared, std::size_t core) {
    pin(core);
    int last = 0;
    while (true) {
        const int asked = shared.asked.load(std::memory_order_acquire);
        if (asked == stop) return;
        if (asked == last) {
            pause();
            continue;
        }
        if (shared.writes.load(std::memory_order_relaxed)) {
            for (std::size_t& word : shared.data) word += 1;
        }
        last = asked;
        shared.answered.store(asked, std::memory_order_release);
    }
}

double seconds(Clock::duration span) { return std::chrono::duration<double>(span).count(); }

double median(std::vector<double>& values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

void ask(Shared& shared, std::size_t core, HandOver& found) {
    pin(core);
    std::size_t sum = 0;
    for (const bool writes : {false, true}) {
        shared.writes.store(writes, std::memory_order_relaxed);
        std::vector<double> times;
        const Clock::time_point begin = Clock::now();
        for (int round = 1; round <= rounds && (round < 3 || Clock::now() - begin < most); ++round) {
            const int number = round + (writes ? rounds : 0);
            const Clock::time_point asked = Clock::now();
            shared.asked.store(number, std::memory_order_release);
            while (shared.answered.load(std::memory_order_acquire) != number) pause();
            const Clock::time_point answered = Clock::now();
            if (writes) {
                for (std::size_t word = 0; word < words; word += 8) sum += shared.data[word];
            }
            times.push_back(seconds(writes ? Clock::now() - answered : answered - asked));
        }
        (writes ? found.bytes_per_second : found.round_trip) =
            writes ? static_cast<double>(sizeof shared.data) / median(times) : median(times);
    }
    shared.data[0] = sum;  // so that it is read
    shared.asked.store(stop, std::memory_order_release);
}

}  // namespace

HandOver measure_hand_over() {
    const std::vector<std::size_t> cores = two_cores();
    HandOver found{0.0, 0.0};
    if (cores.size() < 2) return found;
    Shared shared;
    std::thread other(answer, std::ref(shared), cores[1]);
    std::thread own(ask, std::ref(shared), cores[0], std::ref(found));
    own.join();
    other.join();
    return found;
}

}  // namespace taut
