// The cheapest sequence of stages, by dynamic programming over states.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "schedule/dag.h"
#include "schedule/endings.h"
#include "schedule/walk.h"

namespace taut::schedule {

enum class Strategy : std::uint8_t {
    concurrent,  // each group on its own worker
    merge,       // one operator, or several that become one
    intra,       // one group, each operator on all workers
};
constexpr int strategy_count = 3;

// Stages whose costs are wanted: `words` words of each mask, one strategy each.
struct Batch {
    int words = 1;
    std::vector<std::uint64_t> operators;
    std::vector<std::uint64_t> heads;
    std::vector<std::uint8_t> strategies;
};

// Gives the cost of each stage of a batch.
using Oracle = std::function<std::vector<double>(const Batch&)>;

struct Stage {
    std::vector<int> operators;
    std::vector<int> heads;
    Strategy strategy = Strategy::concurrent;
    double cost = 0;
};

struct Found {
    std::vector<Stage> stages;  // first to run first
    std::uint64_t states = 0;
    std::uint64_t transitions = 0;
    std::uint64_t costs = 0;  // asked for
};

struct Problem {
    const Dag& dag;
    Pruning pruning;
    std::vector<int> merge_classes;  // operators of one class may be merged; negative: with none
    bool allowed[strategy_count];
};

Found search(const Problem& problem, Walk walk, const Oracle& oracle);

}  // namespace taut::schedule
