#include "schedule/count.h"

#include "schedule/set_table.h"

namespace taut::schedule {
namespace {

using Natural = std::vector<std::uint64_t>;

void add(Natural& sum, const Natural& term) {
    if (sum.size() < term.size()) sum.resize(term.size(), 0);
    bool carry = false;
    for (std::size_t i = 0; i < sum.size() && (carry || i < term.size()); ++i) {
        const std::uint64_t before = sum[i];
        const std::uint64_t other = i < term.size() ? term[i] : 0;
        sum[i] = before + other + carry;
        carry = carry ? sum[i] <= before : sum[i] < before;
    }
    if (carry) sum.push_back(1);
}

// Counts the ways from the full set down to each state, the larger states first.
template <int W>
Counts count_words(const Dag& dag, Pruning pruning, Walk& walk) {
    Endings<W> endings(dag, pruning);
    SetTable<W> states;
    std::vector<Natural> ways;
    std::vector<std::vector<std::uint32_t>> layers(dag.size + 1);  // states by size
    const auto reach = [&](const Bits<W>& state, const Natural& more) {
        const std::uint32_t number = states.number(state);
        if (number == ways.size()) {
            ways.emplace_back();
            layers[state.size()].push_back(number);
            walk.check_states(states.size() - 1);
        }
        add(ways[number], more);
    };
    Bits<W> full;
    for (int i = 0; i < dag.size; ++i) full.add(i);
    reach(full, {1});
    for (std::size_t size = dag.size; size > 0; --size) {
        for (const std::uint32_t number : layers[size]) {
            const Natural here = std::move(ways[number]);
            const Bits<W> state = states[number];
            endings.each(state, [&](const Ending<W>& ending) {
                walk.count_transition();
                reach(state.without(ending.operators), here);
            });
        }
    }
    return {states.size() - 1, walk.transitions, ways[layers[0].front()]};
}

}  // namespace

Counts count(const Dag& dag, Pruning pruning, Walk walk) {
    return with_words(dag.size, [&]<int W>() { return count_words<W>(dag, pruning, walk); });
}

}  // namespace taut::schedule
