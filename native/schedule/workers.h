// Schedules without barriers on equal workers, for operators that may take several workers at once.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "schedule/dag.h"

namespace taut::schedule {

// Operators, and the seconds each takes on 1 to `workers` workers; infinite where that is impossible.
struct Tasks {
    const Dag& dag;
    int workers;
    std::vector<double> durations;  // (operators, workers)

    double duration(int task, int threads) const { return durations[static_cast<std::size_t>(task) * workers + threads - 1]; }
};

struct Placement {
    double start = 0;
    int threads = 0;
};

struct Plan {
    std::vector<Placement> placements;  // by operator
    double makespan = 0;
};

struct ExactPlan {
    Plan plan;
    bool optimal = false;  // false when the node limit ended the search
    std::uint64_t nodes = 0;
};

constexpr int most_exact_operators = 64;

// The seconds from the start of each operator to the end at best: itself and the longest way behind it.
std::vector<double> tails(const Dag& dag, const std::vector<double>& seconds);

// The shortest duration of each operator over its numbers of threads.
std::vector<double> shortest(const Tasks& tasks);

// The best of several list schedules, with the operators of the longest way behind them first.
//
// The numbers of threads start at the most economical and grow on the critical path until it is shorter than the
// work by workers (Radulescu and van Gemund, "CPA: Critical Path and Area Based Scheduling", 2001).
Plan list_plan(const Tasks& tasks);

// The shortest schedule, by branch and bound from the list schedule; at most 64 operators.
ExactPlan exact_plan(const Tasks& tasks, std::uint64_t node_limit, const std::function<void()>& pause);

}  // namespace taut::schedule
