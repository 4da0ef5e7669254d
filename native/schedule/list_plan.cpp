#include <algorithm>
#include <limits>

#include "schedule/workers.h"

namespace taut::schedule {
namespace {

// One pass of list scheduling. `adaptive` lets an operator that leaves workers idle take more of them.
Plan place(const Tasks& tasks, const std::vector<int>& threads, const std::vector<double>& priority, bool adaptive) {
    const Dag& dag = tasks.dag;
    Plan plan{std::vector<Placement>(dag.size), 0};
    std::vector<int> waiting(dag.size), ready;
    for (int i = 0; i < dag.size; ++i) {
        waiting[i] = static_cast<int>(dag.predecessors[i].size());
        if (waiting[i] == 0) ready.push_back(i);
    }
    struct Running {
        double end;
        int task;
        int threads;
    };
    std::vector<Running> running;
    int idle = tasks.workers;
    double now = 0;
    while (!ready.empty() || !running.empty()) {
        std::sort(ready.begin(), ready.end(), [&](int a, int b) {
            return priority[a] != priority[b] ? priority[a] > priority[b] : a < b;
        });
        for (std::size_t i = 0; i < ready.size() && idle > 0;) {
            const int task = ready[i];
            int taken = threads[task];
            if (taken > idle) {
                ++i;
                continue;
            }
            if (adaptive && ready.size() - i == 1) {
                for (int more = taken + 1; more <= idle; ++more) {
                    if (tasks.duration(task, more) < tasks.duration(task, taken)) taken = more;
                }
            }
            plan.placements[task] = {now, taken};
            running.push_back({now + tasks.duration(task, taken), task, taken});
            idle -= taken;
            ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(i));
        }
        now = std::numeric_limits<double>::infinity();
        for (const Running& one : running) now = std::min(now, one.end);
        std::erase_if(running, [&](const Running& one) {
            if (one.end > now) return false;
            idle += one.threads;
            for (const int next : dag.successors[one.task]) {
                if (--waiting[next] == 0) ready.push_back(next);
            }
            return true;
        });
    }
    for (int i = 0; i < dag.size; ++i) {
        const Placement& placed = plan.placements[i];
        plan.makespan = std::max(plan.makespan, placed.start + tasks.duration(i, placed.threads));
    }
    return plan;
}

}  // namespace

std::vector<double> tails(const Dag& dag, const std::vector<double>& seconds) {
    std::vector<double> tail(dag.size);
    for (auto u = dag.order.rbegin(); u != dag.order.rend(); ++u) {
        double behind = 0;
        for (const int v : dag.successors[*u]) behind = std::max(behind, tail[v]);
        tail[*u] = seconds[*u] + behind;
    }
    return tail;
}

std::vector<double> shortest(const Tasks& tasks) {
    std::vector<double> seconds(tasks.dag.size);
    for (int i = 0; i < tasks.dag.size; ++i) {
        seconds[i] = tasks.duration(i, 1);
        for (int t = 2; t <= tasks.workers; ++t) seconds[i] = std::min(seconds[i], tasks.duration(i, t));
    }
    return seconds;
}

Plan list_plan(const Tasks& tasks) {
    const Dag& dag = tasks.dag;
    std::vector<int> threads(dag.size, 1);
    for (int i = 0; i < dag.size; ++i) {
        for (int t = 2; t <= tasks.workers; ++t) {
            if (t * tasks.duration(i, t) < threads[i] * tasks.duration(i, threads[i])) threads[i] = t;
        }
    }
    Plan best;
    best.makespan = std::numeric_limits<double>::infinity();
    while (true) {
        std::vector<double> seconds(dag.size);
        double work = 0;
        for (int i = 0; i < dag.size; ++i) {
            seconds[i] = tasks.duration(i, threads[i]);
            work += threads[i] * seconds[i];
        }
        const std::vector<double> tail = tails(dag, seconds);
        for (const bool adaptive : {false, true}) {
            Plan plan = place(tasks, threads, tail, adaptive);
            if (plan.makespan < best.makespan || best.placements.empty()) best = std::move(plan);
        }
        const double path = dag.size == 0 ? 0 : *std::max_element(tail.begin(), tail.end());
        if (path <= work / tasks.workers) return best;

        // The operator of the critical path that gains most from more threads takes them.
        int chosen = -1, wider = 0;
        double gain = 0;
        double from = path;
        for (const int u : dag.order) {
            if (tail[u] != from) continue;
            for (int t = threads[u] + 1; t <= tasks.workers; ++t) {
                const double saved = seconds[u] - tasks.duration(u, t);
                if (saved > gain) {
                    gain = saved;
                    chosen = u;
                    wider = t;
                }
            }
            from = 0;
            for (const int v : dag.successors[u]) from = std::max(from, tail[v]);
        }
        if (chosen < 0) return best;
        threads[chosen] = wider;
    }
}

}  // namespace taut::schedule
