#include "schedule/dag.h"

#include <algorithm>

namespace taut::schedule {

Dag::Dag(int size, const std::vector<std::pair<int, int>>& edges) : size(size) {
    if (size < 0 || size > most_operators) throw InvalidGraph("too many operators");
    const auto places = static_cast<std::size_t>(size);
    successors.resize(places);
    predecessors.resize(places);
    std::vector<int> waiting(places, 0);
    for (const auto& [from, to] : edges) {
        if (from < 0 || to < 0 || from >= size || to >= size) throw InvalidGraph("an edge leaves the graph");
        successors[from].push_back(to);
        predecessors[to].push_back(from);
        ++waiting[to];
    }
    order.reserve(places);
    for (int i = 0; i < size; ++i) {
        if (waiting[i] == 0) order.push_back(i);
    }
    for (std::size_t next = 0; next < order.size(); ++next) {
        for (const int to : successors[order[next]]) {
            if (--waiting[to] == 0) order.push_back(to);
        }
    }
    if (order.size() != places) throw InvalidGraph("the graph has a cycle");
}

std::vector<std::vector<bool>> reachability(const Dag& dag) {
    std::vector<std::vector<bool>> reached(dag.size, std::vector<bool>(dag.size, false));
    for (auto u = dag.order.rbegin(); u != dag.order.rend(); ++u) {
        reached[*u][*u] = true;
        for (const int v : dag.successors[*u]) {
            for (int w = 0; w < dag.size; ++w) {
                if (reached[v][w]) reached[*u][w] = true;
            }
        }
    }
    return reached;
}

std::vector<std::vector<int>> longest_chains(const Dag& dag) {
    const std::vector<std::vector<bool>> reached = reachability(dag);
    std::vector<int> left = dag.order;
    std::vector<int> length(dag.size), next(dag.size);
    std::vector<std::vector<int>> chains;
    while (!left.empty()) {
        int best = left.back();
        for (std::size_t i = left.size(); i-- > 0;) {
            const int u = left[i];
            length[u] = 1;
            next[u] = -1;
            for (std::size_t j = i + 1; j < left.size(); ++j) {
                const int v = left[j];
                if (reached[u][v] && length[v] + 1 > length[u]) {
                    length[u] = length[v] + 1;
                    next[u] = v;
                }
            }
            if (length[u] > length[best]) best = u;
        }
        std::vector<int>& chain = chains.emplace_back();
        for (int u = best; u >= 0; u = next[u]) chain.push_back(u);
        std::erase_if(left, [&](int u) { return std::find(chain.begin(), chain.end(), u) != chain.end(); });
    }
    return chains;
}

}  // namespace taut::schedule
