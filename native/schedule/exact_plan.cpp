#include <algorithm>
#include <bit>
#include <limits>
#include <unordered_map>

#include "schedule/workers.h"

namespace taut::schedule {
namespace {

constexpr std::size_t most_of_a_set = 64;  // nodes remembered with the same operators started
constexpr std::size_t most_remembered = std::size_t{1} << 20;

// Starts operators in the order of their start times, each as early as that order allows. Some such sequence gives an
// optimum: started in the order of an optimal schedule, no operator starts later than it does there.
class Branching {
public:
    Branching(const Tasks& tasks, std::uint64_t node_limit, const std::function<void()>& pause)
        : tasks(tasks), node_limit(node_limit), pause(pause), tail(tails(tasks.dag, shortest(tasks))) {
        for (int i = 0; i < tasks.dag.size; ++i) {
            double least = tasks.duration(i, 1);
            for (int t = 2; t <= tasks.workers; ++t) least = std::min(least, t * tasks.duration(i, t));
            work.push_back(least);
            behind.push_back(0);
            for (const int next : tasks.dag.successors[i]) behind[i] = std::max(behind[i], tail[next]);
            by_behind.push_back(i);
        }
        std::sort(by_behind.begin(), by_behind.end(), [&](int a, int b) { return behind[a] > behind[b]; });
    }

    ExactPlan run() {
        best = list_plan(tasks);
        current.resize(tasks.dag.size);
        ends.assign(tasks.dag.size, 0);
        extend(0, std::vector<double>(tasks.workers, 0), 0);
        return {best, nodes <= node_limit, nodes};
    }

private:
    struct Choice {
        int task, threads;
        double start, end;
    };

    // `free` holds when each worker becomes free, ascending, none before `now`.
    void extend(std::uint64_t started, const std::vector<double>& free, double now) {
        if (++nodes > node_limit) return;
        if (nodes % 65536 == 0) pause();
        const int size = tasks.dag.size;
        if (std::popcount(started) == size) {
            const double makespan = free.back();
            if (makespan < best.makespan) best = {current, makespan};
            return;
        }
        if (bound(started, free) >= best.makespan || dominated(started, free, now)) return;
        std::vector<Choice> choices;
        for (int task = 0; task < size; ++task) {
            if (started >> task & 1 || !ready(task, started)) continue;
            const double earliest = std::max(now, available(task));
            for (int threads = 1; threads <= tasks.workers; ++threads) {
                const double start = std::max(earliest, free[threads - 1]);
                const double seconds = tasks.duration(task, threads);
                if (start + seconds + behind[task] < best.makespan) {
                    choices.push_back({task, threads, start, start + seconds});
                }
            }
        }
        // An operator that could end before another starts may as well do so: the workers would be idle.
        const std::vector<Choice> all = choices;
        std::erase_if(choices, [&](const Choice& late) {
            return std::any_of(all.begin(), all.end(), [&](const Choice& early) {
                return early.task != late.task && early.start < late.start && early.end <= late.start;
            });
        });
        std::sort(choices.begin(), choices.end(), [&](const Choice& a, const Choice& b) {
            if (a.start != b.start) return a.start < b.start;
            return tail[a.task] != tail[b.task] ? tail[a.task] > tail[b.task] : a.end < b.end;
        });
        for (const Choice& choice : choices) {
            if (choice.end + behind[choice.task] >= best.makespan) continue;
            std::vector<double> next = free;
            for (int i = 0; i < choice.threads; ++i) next[i] = choice.end;
            for (double& time : next) time = std::max(time, choice.start);
            std::sort(next.begin(), next.end());
            current[choice.task] = {choice.start, choice.threads};
            ends[choice.task] = choice.end;
            extend(started | std::uint64_t{1} << choice.task, next, choice.start);
            if (nodes > node_limit) return;
        }
    }

    bool ready(int task, std::uint64_t started) const {
        for (const int before : tasks.dag.predecessors[task]) {
            if (!(started >> before & 1)) return false;
        }
        return true;
    }

    double available(int task) const {
        double time = 0;
        for (const int before : tasks.dag.predecessors[task]) time = std::max(time, ends[before]);
        return time;
    }

    double bound(std::uint64_t started, const std::vector<double>& free) const {
        double least = free.back();
        double waiting = 0;
        for (const int u : by_behind) {
            if (started >> u & 1) continue;
            waiting += work[u];
            // Rounding of the sums must not cut off an optimum.
            least = std::max(least, (filled(free, waiting) + behind[u]) * (1 - 1e-12));
        }
        std::vector<double> earliest(tasks.dag.size);
        for (const int u : tasks.dag.order) {
            if (started >> u & 1) {
                earliest[u] = ends[u];
                continue;
            }
            double time = free.front();
            for (const int before : tasks.dag.predecessors[u]) time = std::max(time, earliest[before]);
            least = std::max(least, (time + tail[u]) * (1 - 1e-12));
            earliest[u] = time + tail[u] - behind[u];
        }
        return least;
    }

    // When all of `seconds` of work can be done at the earliest.
    static double filled(const std::vector<double>& free, double seconds) {
        double sum = seconds;
        for (std::size_t used = 1;; ++used) {
            sum += free[used - 1];
            const double time = sum / static_cast<double>(used);
            if (used == free.size() || time <= free[used]) return time;
        }
    }

    // Whether a node with the same operators started was nowhere later. Otherwise the node is remembered.
    bool dominated(std::uint64_t started, const std::vector<double>& free, double now) {
        std::vector<double> times = free;
        times.push_back(now);
        for (int task = 0; task < tasks.dag.size; ++task) {
            if (started >> task & 1) times.push_back(ends[task] > now && !all_started(task, started) ? ends[task] : 0);
        }
        const auto known = remembered.find(started);
        if (known == remembered.end()) {
            if (total < most_remembered) {
                remembered[started].push_back(std::move(times));
                ++total;
            }
            return false;
        }
        std::vector<std::vector<double>>& others = known->second;
        for (const std::vector<double>& other : others) {
            if (std::equal(times.begin(), times.end(), other.begin(), [](double a, double b) { return a >= b; })) {
                return true;
            }
        }
        if (others.size() < most_of_a_set && total < most_remembered) {
            others.push_back(std::move(times));
            ++total;
        }
        return false;
    }

    bool all_started(int task, std::uint64_t started) const {
        for (const int next : tasks.dag.successors[task]) {
            if (!(started >> next & 1)) return false;
        }
        return true;
    }

    const Tasks& tasks;
    std::uint64_t node_limit;
    const std::function<void()>& pause;
    std::vector<double> tail;
    std::vector<double> work;  // the least seconds × workers of each operator
    std::vector<double> behind;  // the seconds that must follow each operator
    std::vector<int> by_behind;  // the operators, most first
    std::vector<Placement> current;
    std::vector<double> ends;
    Plan best;
    std::uint64_t nodes = 0;
    std::size_t total = 0;  // nodes remembered
    std::unordered_map<std::uint64_t, std::vector<std::vector<double>>> remembered;
};

}  // namespace

ExactPlan exact_plan(const Tasks& tasks, std::uint64_t node_limit, const std::function<void()>& pause) {
    return Branching(tasks, node_limit, pause).run();
}

}  // namespace taut::schedule
