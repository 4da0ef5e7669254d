// What it costs to pass work from one core to another.
#pragma once

namespace taut {

struct HandOver {
    double round_trip;        // seconds for a cache line to another core and back, the median
    double bytes_per_second;  // at which a core reads what another has just written, the median
};

// Takes a few milliseconds; zeros where this process may use one core only, or the system does not say which.
HandOver measure_hand_over();

}  // namespace taut
