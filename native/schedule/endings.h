// The endings of a state whose groups are heads with all their successors.
//
// From: Ding et al., "IOS: Inter-Operator Scheduler for CNN Acceleration", MLSys 2021, section 4.
#pragma once

#include <vector>

#include "schedule/bits.h"
#include "schedule/dag.h"

namespace taut::schedule {

struct Pruning {
    int largest_group;
    int most_groups;
};

template <int W>
struct Ending {
    Bits<W> operators;
    Bits<W> heads;
    int groups = 0;
};

template <int W>
class Endings {
public:
    Endings(const Dag& dag, Pruning pruning) : pruning(pruning), closures(dag.size), chains(longest_chains(dag)) {
        for (auto u = dag.order.rbegin(); u != dag.order.rend(); ++u) {
            closures[*u].add(*u);
            for (const int v : dag.successors[*u]) closures[*u] = closures[*u] | closures[v];
        }
        candidates.resize(chains.size());
    }

    // Calls `visit` with each ending of `state`, once; two heads of one chain would share successors.
    template <class Visit>
    void each(const Bits<W>& state, Visit&& visit) {
        for (std::size_t i = 0; i < chains.size(); ++i) {
            candidates[i].clear();
            for (const int head : chains[i]) {
                if (!state.has(head)) continue;
                const Bits<W> group = closures[head] & state;
                if (group.size() <= pruning.largest_group) candidates[i].push_back({head, group});
            }
        }
        extend(0, {}, visit);
    }

private:
    struct Candidate {
        int head;
        Bits<W> group;
    };

    template <class Visit>
    void extend(std::size_t chain, const Ending<W>& begun, Visit& visit) {
        for (; chain < chains.size(); ++chain) {
            for (const Candidate& candidate : candidates[chain]) {
                if (candidate.group.meets(begun.operators)) continue;
                Ending<W> ending{begun.operators | candidate.group, begun.heads, begun.groups + 1};
                ending.heads.add(candidate.head);
                visit(ending);
                if (ending.groups < pruning.most_groups) extend(chain + 1, ending, visit);
            }
        }
    }

    Pruning pruning;
    std::vector<Bits<W>> closures;
    std::vector<std::vector<int>> chains;
    std::vector<std::vector<Candidate>> candidates;  // of the state at hand, by chain
};

}  // namespace taut::schedule
