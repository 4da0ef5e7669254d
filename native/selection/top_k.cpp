// Selection by rank. Large tensors are read once: a sample bounds the k-th magnitude, what reaches the lower bound is kept in
// passing, and the exact cut is found among the few entries between the bounds. If the sample misled, all that was kept
// decides, or the whole tensor.
#include <algorithm>
#include <utility>
#include <vector>

#include "common/huge_pages.h"
#include "common/parallel.h"
#include "selection/candidates.h"
#include "selection/exact_selection.h"
#include "selection/sample.h"
#include "selection/selection.h"

namespace taut {
namespace {

constexpr std::int64_t elements_per_thread = 1 << 16;

std::vector<Candidates> whole_tensor(const TopKCall& call, int threads) {
    std::vector<Candidates> runs;
    for (int t = 0; t < threads; ++t) {
        const Range range = share(call.size, t, threads);
        runs.push_back({call.x + range.begin, nullptr, range.begin, range.end - range.begin});
    }
    return runs;
}

void add_gradient(const SelectionKernels& kernels, const TopKCall& call, int threads) {
    parallel(threads, [&](int thread, int count) {
        const Range range = share(call.size, thread, count);
        kernels.add(call.gradient + range.begin, call.x + range.begin, range.end - range.begin);
    });
}

void select_from_tensor(const SelectionKernels& kernels, const TopKCall& call, int threads) {
    ExactSelection selection(kernels, whole_tensor(call, threads), call.k, threads);
    selection.find_cut(0);
    selection.collect(call.indices, call.values);
}

// The gradient has been added when this returns.
void select_sampling(const SelectionKernels& kernels, const TopKCall& call, const Bounds& bounds, int threads) {
    const CandidateList list(kernels, call, bounds, threads);
    const std::int64_t kept = list.kept(), undecided = list.undecided();
    const std::int64_t wanted = call.k - (kept - undecided);
    if (kept < call.k && (kept < 0 || bounds.least > 1)) return select_from_tensor(kernels, call, threads);
    ExactSelection selection(kernels, kept < call.k ? whole_tensor(call, threads) : list.kept_runs(), call.k, threads);
    if (kept < call.k) {
        selection.include_zeros(kept);
    } else if (undecided >= 0 && wanted > 0) {
        selection.find_cut(list.undecided_runs(), bounds.band(), wanted);
    } else {
        selection.find_cut(bounds.least);
    }
    selection.collect(call.indices, call.values);
}

}  // namespace

void top_k(const TopKCall& call, int threads) {
    const SelectionKernels& kernels = selection_kernels();
    threads = static_cast<int>(std::clamp<std::int64_t>(call.size / elements_per_thread, 1, threads));
    prefer_huge_pages(call.indices, static_cast<std::size_t>(call.k) * sizeof(std::int32_t));
    prefer_huge_pages(call.values, static_cast<std::size_t>(call.k) * sizeof(float));
    Bounds bounds{.kept = call.size, .undecided = call.size};
    if (call.k > 0 && call.k < call.size / 2 && call.size >= least_sampled) bounds = sample(kernels, call);
    if (bounds.kept < call.size / 2) {
        select_sampling(kernels, call, bounds, threads);
    } else {
        if (call.gradient != nullptr) add_gradient(kernels, call, threads);
        if (call.k > 0) select_from_tensor(kernels, call, threads);
    }
    if (call.clear) {
        for (std::int64_t i = 0; i < call.k; ++i) call.x[call.indices[i]] = 0.0f;
    }
}

}  // namespace taut
