#include "signal/signal.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "common/pause.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>
#endif

namespace taut {
namespace {

using Clock = std::chrono::steady_clock;

struct Signal {
    std::atomic<std::uint32_t> number;
    std::atomic<std::uint32_t> sleepers;
};
static_assert(sizeof(Signal) == signal_bytes && std::atomic<std::uint32_t>::is_always_lock_free);

// Without the private flag: sleeper and waker are different processes.
void sleep_while(std::atomic<std::uint32_t>& word, std::uint32_t value, double seconds) {
#if defined(__linux__)
    timespec limit{};
    limit.tv_sec = static_cast<time_t>(seconds);
    limit.tv_nsec = static_cast<long>((seconds - static_cast<double>(limit.tv_sec)) * 1e9);
    syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT, value, &limit, nullptr, 0);
#else
    const auto begin = Clock::now();
    while (word.load() == value && Clock::now() - begin < std::chrono::duration<double>(seconds)) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
#endif
}

void wake_all(std::atomic<std::uint32_t>& word) {
#if defined(__linux__)
    syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
#endif
    static_cast<void>(word);
}

bool reached(std::uint32_t found, std::uint32_t number) { return static_cast<std::int32_t>(found - number) >= 0; }

int first_reached(void* const* signals, int count, std::uint32_t number) {
    for (int i = 0; i < count; ++i) {
        if (reached(static_cast<Signal*>(signals[i])->number.load(std::memory_order_acquire), number)) return i;
    }
    return -1;
}

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace

void raise_signal(void* signal, std::uint32_t number) {
    auto& raised = *static_cast<Signal*>(signal);
    raised.number.store(number);
    // A sleeper counts itself before it reads the number once more: either it is seen here, or it sees the number.
    if (raised.sleepers.load() != 0) wake_all(raised.number);
}

int wait_for_signal(void* const* signals, int count, std::uint32_t number, double seconds, double spin_seconds) {
    const auto begin = Clock::now();
    int found = first_reached(signals, count, number);
    while (found < 0 && seconds_since(begin) < std::min(spin_seconds, seconds)) {
        for (int spins = 0; spins < 16 && found < 0; ++spins) {
            pause();
            found = first_reached(signals, count, number);
        }
    }
    while (found < 0) {
        const double left = seconds - seconds_since(begin);
        if (left <= 0.0) return -1;
        auto& awaited = *static_cast<Signal*>(signals[0]);
        awaited.sleepers.fetch_add(1);
        const std::uint32_t seen = awaited.number.load();
        if (!reached(seen, number)) sleep_while(awaited.number, seen, left);
        awaited.sleepers.fetch_sub(1);
        found = first_reached(signals, count, number);
    }
    return found;
}

}  // namespace taut
