#pragma once

#include <pthread.h>
#include <time.h>

#include <chrono>
#include <cstdint>

namespace taut::vm {

// Nanoseconds of a clock that never goes back.
inline std::int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// What a thread has run so far; -1 where the system does not tell.
class ThreadClock {
   public:
    ThreadClock() = default;
    explicit ThreadClock(pthread_t thread) {
#ifdef __linux__
        known_ = pthread_getcpuclockid(thread, &id_) == 0;
#else
        (void)thread;
#endif
    }
    std::int64_t nanoseconds() const {
        timespec time;
        if (!known_ || clock_gettime(id_, &time) != 0) return -1;
        return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_nsec;
    }

   private:
    clockid_t id_{};
    bool known_ = false;
};

}  // namespace taut::vm
