// The number of states, transitions and schedules of a graph.
#pragma once

#include <cstdint>
#include <vector>

#include "schedule/dag.h"
#include "schedule/endings.h"
#include "schedule/walk.h"

namespace taut::schedule {

struct Counts {
    std::uint64_t states = 0;
    std::uint64_t transitions = 0;
    std::vector<std::uint64_t> schedules;  // a natural number, its least word first
};

Counts count(const Dag& dag, Pruning pruning, Walk walk);

}  // namespace taut::schedule
