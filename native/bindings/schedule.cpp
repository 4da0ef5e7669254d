// The Python module taut.compile.interop._schedule.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <new>
#include <string>

#include "schedule/count.h"
#include "schedule/search.h"
#include "schedule/workers.h"

namespace nb = nanobind;

namespace taut::schedule {
namespace {

using Edges = std::vector<std::pair<int, int>>;

void set_graph_error(const std::string& message, const char* expected, const char* fix) {
    const nb::object type = nb::module_::import_("taut.errors").attr("GraphError");
    const nb::object value = type(message.c_str(), nb::arg("expected") = expected, nb::arg("fix") = fix);
    PyErr_SetObject(type.ptr(), value.ptr());
}

void translate(const std::exception_ptr& exception, void*) {
    try {
        std::rethrow_exception(exception);
    } catch (const LimitReached& reached) {
        set_graph_error("the graph has more than " + std::to_string(reached.limit) + " " + reached.what,
                        "a graph that can be searched within the limits", "lower r, s or max_part_size, or raise the limit");
    } catch (const InvalidGraph& error) {
        set_graph_error(error.what(), "a directed acyclic graph", "correct the edges");
    } catch (const std::bad_alloc&) {
        set_graph_error("the states of the graph do not fit into memory", "enough memory", "lower r, s or max_part_size");
    }
}

// Lets a keyboard interrupt end a walk.
void check_signals() {
    const nb::gil_scoped_acquire held;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

nb::bytes as_bytes(const auto& values) { return nb::bytes(values.data(), values.size() * sizeof(values[0])); }

nb::tuple count_graph(int size, const Edges& edges, Pruning pruning, std::uint64_t states, std::uint64_t transitions) {
    Counts counts;
    {
        const nb::gil_scoped_release released;
        counts = count(Dag(size, edges), pruning, Walk(states, transitions, check_signals));
    }
    return nb::make_tuple(counts.states, counts.transitions, as_bytes(counts.schedules));
}

nb::tuple search_graph(int size, const Edges& edges, Pruning pruning, std::vector<int> merge_classes,
                       const std::vector<int>& strategies, std::uint64_t states, std::uint64_t transitions,
                       nb::callable costs) {
    const Oracle oracle = [&](const Batch& batch) {
        const nb::gil_scoped_acquire held;
        const nb::bytes answer = nb::cast<nb::bytes>(
            costs(batch.words, as_bytes(batch.operators), as_bytes(batch.heads), as_bytes(batch.strategies)));
        std::vector<double> values(batch.strategies.size());
        if (answer.size() != values.size() * sizeof(double)) throw nb::value_error("the oracle gave a wrong number of costs");
        std::memcpy(values.data(), answer.c_str(), answer.size());
        return values;
    };
    Found found;
    {
        const nb::gil_scoped_release released;
        const Dag dag(size, edges);
        merge_classes.resize(dag.size, -1);
        Problem problem{dag, pruning, std::move(merge_classes), {}};
        for (const int strategy : strategies) {
            if (strategy >= 0 && strategy < strategy_count) problem.allowed[strategy] = true;
        }
        found = search(problem, Walk(states, transitions, check_signals), oracle);
    }
    nb::list stages;
    for (const Stage& stage : found.stages) {
        stages.append(nb::make_tuple(stage.operators, stage.heads, static_cast<int>(stage.strategy), stage.cost));
    }
    return nb::make_tuple(stages, found.states, found.transitions, found.costs);
}

Tasks make_tasks(const Dag& dag, int workers, std::vector<double> durations) {
    if (workers < 1 || durations.size() != static_cast<std::size_t>(dag.size) * workers) {
        throw nb::value_error("durations must be (operators, workers)");
    }
    return {dag, workers, std::move(durations)};
}

nb::tuple as_tuple(const Plan& plan) {
    nb::list placements;
    for (const Placement& placed : plan.placements) placements.append(nb::make_tuple(placed.start, placed.threads));
    return nb::make_tuple(placements, plan.makespan);
}

nb::tuple plan_by_list(int size, const Edges& edges, int workers, std::vector<double> durations) {
    const Dag dag(size, edges);
    return as_tuple(list_plan(make_tasks(dag, workers, std::move(durations))));
}

nb::tuple plan_exactly(int size, const Edges& edges, int workers, std::vector<double> durations, std::uint64_t node_limit) {
    const Dag dag(size, edges);
    if (dag.size > most_exact_operators) throw nb::value_error("at most 64 operators");
    const Tasks tasks = make_tasks(dag, workers, std::move(durations));
    ExactPlan exact;
    {
        const nb::gil_scoped_release released;
        exact = exact_plan(tasks, node_limit, check_signals);
    }
    return nb::make_tuple(as_tuple(exact.plan), exact.optimal, exact.nodes);
}

}  // namespace
}  // namespace taut::schedule

NB_MODULE(_schedule, module) {
    namespace ts = taut::schedule;
    module.doc() = "Search of inter-operator schedules.";
    nb::register_exception_translator(ts::translate);
    module.attr("most_operators") = ts::most_operators;
    module.attr("most_exact_operators") = ts::most_exact_operators;
    module.def("longest_chains", [](int size, const ts::Edges& edges) { return ts::longest_chains(ts::Dag(size, edges)); });
    module.def("count", [](int size, const ts::Edges& edges, int r, int s, std::uint64_t states, std::uint64_t transitions) {
        return ts::count_graph(size, edges, {r, s}, states, transitions);
    });
    module.def("search", [](int size, const ts::Edges& edges, int r, int s, std::vector<int> merge_classes,
                            const std::vector<int>& strategies, std::uint64_t states, std::uint64_t transitions,
                            nb::callable costs) {
        return ts::search_graph(size, edges, {r, s}, std::move(merge_classes), strategies, states, transitions, costs);
    });
    module.def("list_plan", &ts::plan_by_list);
    module.def("exact_plan", &ts::plan_exactly);
}
