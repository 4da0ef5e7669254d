// A team of threads from OpenMP's pool. torch ships a libgomp of the same soname as ours, so both share one pool.
#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace taut {

struct Range {
    std::int64_t begin;
    std::int64_t end;
};

// The share of `thread` out of `count` when `total` items are dealt in contiguous, nearly equal runs.
inline Range share(std::int64_t total, int thread, int count) {
    return {total * thread / count, total * (thread + 1) / count};
}

// Runs body(thread, count) on a team of at most `threads` threads. The body must not throw.
template <class Body>
void parallel(int threads, Body&& body) {
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        body(omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#else
    (void)threads;
#endif
    body(0, 1);
}

}  // namespace taut
