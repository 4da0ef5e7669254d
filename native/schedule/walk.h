// The limits of a walk over states, and the choice of the width of their sets.
#pragma once

#include <cstdint>
#include <functional>

#include "schedule/dag.h"

namespace taut::schedule {

struct LimitReached {
    const char* what;  // "states", "transitions" or "stages"
    std::uint64_t limit;
};

class Walk {
public:
    Walk(std::uint64_t states, std::uint64_t transitions, std::function<void()> pause)
        : state_limit(states), transition_limit(transitions), pause(std::move(pause)) {}

    void count_transition() {
        if (++transitions > transition_limit) throw LimitReached{"transitions", transition_limit};
        if (transitions % 65536 == 0) pause();
    }

    void check_states(std::size_t states) const {
        if (states > state_limit) throw LimitReached{"states", state_limit};
    }

    // Different stages are kept like states, and may be far more.
    void check_stages(std::size_t stages) const {
        if (stages > state_limit) throw LimitReached{"stages", state_limit};
    }

    std::uint64_t transitions = 0;

private:
    std::uint64_t state_limit;
    std::uint64_t transition_limit;
    std::function<void()> pause;  // may throw to end the walk
};

// Calls `call.operator()<W>()` with the least W of those compiled that holds `size` bits.
template <class Call>
auto with_words(int size, Call&& call) {
    if (size <= 64) return call.template operator()<1>();
    if (size <= 128) return call.template operator()<2>();
    if (size <= 512) return call.template operator()<8>();
    return call.template operator()<most_operators / 64>();
}

}  // namespace taut::schedule
