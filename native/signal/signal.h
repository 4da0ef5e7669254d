// Counters in memory that processes share: one of them writes, the others wait.
#pragma once

#include <cstdint>

namespace taut {

constexpr std::int64_t signal_bytes = 8;  // at an address that is a multiple of 4

// Sets the counter, after all that was written before, and wakes those who wait for it.
void raise_signal(void* signal, std::uint32_t number);

// The place of the first of `count` counters that has reached `number`, or -1 after `seconds`. Numbers wrap around:
// one counts as reached if it is less than 2^31 ahead. Spins for `spin_seconds` before it sleeps.
int wait_for_signal(void* const* signals, int count, std::uint32_t number, double seconds, double spin_seconds);

}  // namespace taut
