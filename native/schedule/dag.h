// A directed acyclic graph of operators, and its decomposition into chains.
#pragma once

#include <stdexcept>
#include <utility>
#include <vector>

namespace taut::schedule {

constexpr int most_operators = 4096;

struct InvalidGraph : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

struct Dag {
    // Throws InvalidGraph for a wrong number or a cycle.
    Dag(int size, const std::vector<std::pair<int, int>>& edges);

    int size;
    std::vector<std::vector<int>> successors;
    std::vector<std::vector<int>> predecessors;
    std::vector<int> order;  // predecessors first
};

// For each operator those that it reaches, itself included, as one flag each.
std::vector<std::vector<bool>> reachability(const Dag& dag);

// The longest chain of the transitive closure, then the longest of what is left, and so on.
std::vector<std::vector<int>> longest_chains(const Dag& dag);

}  // namespace taut::schedule
