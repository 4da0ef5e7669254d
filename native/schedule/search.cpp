#include "schedule/search.h"

#include <algorithm>
#include <limits>

#include "schedule/set_table.h"

namespace taut::schedule {
namespace {

constexpr double unreached = std::numeric_limits<double>::infinity();
constexpr std::size_t transitions_at_once = std::size_t{1} << 20;

// Relaxes transitions from larger to smaller states, so that the way down to a state is final before it is left.
template <int W>
class Search {
public:
    Search(const Problem& problem, Walk& walk, const Oracle& oracle)
        : problem(problem), walk(walk), oracle(oracle), endings(problem.dag, problem.pruning) {}

    Found run() {
        const int size = problem.dag.size;
        layers.resize(size + 1);
        Bits<W> full;
        for (int i = 0; i < size; ++i) full.add(i);
        ways[reach(full)].cost = 0;
        for (int left = size; left > 0; --left) {
            for (const std::uint32_t from : layers[left]) {
                leave(from);
                if (pending.size() >= transitions_at_once) relax();
            }
            relax();
        }
        return read_back();
    }

private:
    struct Way {
        double cost = unreached;
        std::uint32_t from = 0;
        std::uint32_t ending = 0;
    };
    struct Price {
        double cost = unreached;
        Strategy strategy = Strategy::concurrent;
    };
    struct Transition {
        std::uint32_t from, to, ending;
    };

    std::uint32_t reach(const Bits<W>& state) {
        const std::uint32_t number = states.number(state);
        if (number == ways.size()) {
            ways.emplace_back();
            layers[state.size()].push_back(number);
            walk.check_states(states.size() - 1);
        }
        return number;
    }

    void leave(std::uint32_t from) {
        const Bits<W> state = states[from];
        endings.each(state, [&](const Ending<W>& ending) {
            walk.count_transition();
            // The heads are those without a predecessor in the set, so the set alone decides every cost.
            const std::uint32_t number = sets.number(ending.operators);
            if (number == prices.size()) {
                walk.check_stages(sets.size());
                prices.emplace_back();
                heads.push_back(ending.heads);
                request(number, ending);
            }
            if (offered[number]) pending.push_back({from, reach(state.without(ending.operators)), number});
        });
    }

    void request(std::uint32_t number, const Ending<W>& ending) {
        const bool wanted[strategy_count] = {true, mergeable(ending), ending.groups == 1};
        offered.push_back(false);
        for (int i = 0; i < strategy_count; ++i) {
            if (!wanted[i] || !problem.allowed[i]) continue;
            offered[number] = true;
            asked.push_back(number);
            const auto append = [](std::vector<std::uint64_t>& words, const Bits<W>& set) {
                words.insert(words.end(), set.words.begin(), set.words.end());
            };
            append(batch.operators, ending.operators);
            append(batch.heads, ending.heads);
            batch.strategies.push_back(static_cast<std::uint8_t>(i));
        }
    }

    bool mergeable(const Ending<W>& ending) const {
        if (!(ending.heads == ending.operators)) return false;
        if (ending.groups == 1) return true;
        int shared = -2;
        bool same = true;
        ending.operators.each([&](int i) {
            if (shared == -2) shared = problem.merge_classes[i];
            same = same && problem.merge_classes[i] == shared;
        });
        return same && shared >= 0;
    }

    void relax() {
        if (!asked.empty()) {
            batch.words = W;
            const std::vector<double> costs = oracle(batch);
            for (std::size_t i = 0; i < asked.size(); ++i) {
                Price& price = prices[asked[i]];
                if (costs.at(i) < price.cost) price = {costs[i], static_cast<Strategy>(batch.strategies[i])};
            }
            total += asked.size();
            asked.clear();
            batch = {};
        }
        for (const Transition& step : pending) {
            const double cost = ways[step.from].cost + prices[step.ending].cost;
            if (cost < ways[step.to].cost) ways[step.to] = {cost, step.from, step.ending};
        }
        pending.clear();
    }

    Found read_back() {
        Found found{{}, states.size() - 1, walk.transitions, total};
        const std::uint32_t full = 0;
        for (std::uint32_t at = layers[0].front(); at != full; at = ways[at].from) {
            const std::uint32_t ending = ways[at].ending;
            Stage& stage = found.stages.emplace_back();
            sets[ending].each([&](int i) { stage.operators.push_back(i); });
            heads[ending].each([&](int i) { stage.heads.push_back(i); });
            stage.strategy = prices[ending].strategy;
            stage.cost = prices[ending].cost;
        }
        return found;
    }

    const Problem& problem;
    Walk& walk;
    const Oracle& oracle;
    Endings<W> endings;
    SetTable<W> states;
    std::vector<Way> ways;                           // by state
    std::vector<std::vector<std::uint32_t>> layers;  // states by size
    SetTable<W> sets;                                // of stages
    std::vector<Bits<W>> heads;                      // by set
    std::vector<Price> prices;                       // the cheapest strategy, by set
    std::vector<bool> offered;                       // whether any strategy fits, by set
    std::vector<Transition> pending;
    std::vector<std::uint32_t> asked;  // the set of each stage of the batch
    Batch batch;
    std::uint64_t total = 0;
};

}  // namespace

Found search(const Problem& problem, Walk walk, const Oracle& oracle) {
    return with_words(problem.dag.size, [&]<int W>() { return Search<W>(problem, walk, oracle).run(); });
}

}  // namespace taut::schedule
