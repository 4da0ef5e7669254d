#pragma once

#include <chrono>
#include <cstdint>

namespace taut::vm {

// Nanoseconds of a clock that never goes back.
inline std::int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

}  // namespace taut::vm
