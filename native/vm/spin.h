// Waiting in a loop for another thread.
#pragma once

#include <thread>

#include "common/pause.h"
#include "vm/clock.h"

namespace taut::vm {

// Counts the time spent waiting; gives the core away once it is long.
class Wait {
   public:
    void reset() { rounds_ = 0; }
    // One turn of the loop; gives the nanoseconds since the first.
    std::int64_t turn() {
        if (rounds_ == 0) {
            start_ = now();
            waited_ = 0;
        }
        if (++rounds_ % rounds_between_clock_reads == 0) waited_ = now() - start_;
        if (waited_ > nanoseconds_before_yielding) {
            std::this_thread::yield();
        } else {
            pause();
        }
        return waited_;
    }

   private:
    static constexpr std::uint32_t rounds_between_clock_reads = 8;
    static constexpr std::int64_t nanoseconds_before_yielding = 50'000;

    std::uint32_t rounds_ = 0;
    std::int64_t start_ = 0;
    std::int64_t waited_ = 0;
};

}  // namespace taut::vm
