#include "vm/job.h"

#include "vm/spin.h"

namespace taut::vm {
namespace {

// How long a ready task of another queue is left to its owner.
constexpr std::int64_t patience = 3'000;            // nanoseconds
constexpr std::int64_t patience_with_absent = 500;  // whose thread has not come yet

// When a wait is long, and how often it is looked into after that.
constexpr std::int64_t long_wait = 100'000;       // nanoseconds
constexpr std::int64_t between_looks = 200'000;

// Rounding and denormals, which the caller may have set; 0 where there is nothing to take over.
std::uint32_t control_word() {
#if defined(__x86_64__) || defined(_M_X64)
    return _mm_getcsr();
#else
    return 0;
#endif
}

void set_control_word(std::uint32_t word) {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_setcsr(word);
#else
    (void)word;
#endif
}

}  // namespace

Job::Job(const Region& region, unsigned workers)
    : tasks_(region.tasks),
      queues_(workers),
      cursors_(workers),
      waiting_(new std::atomic<std::uint32_t>[region.tasks.size()]),
      present_(new std::atomic<bool>[workers]),
      clocks_(workers),
      progress_(workers, std::vector<Progress>(workers)) {
    for (std::uint32_t task = 0; task < tasks_.size(); ++task) queues_[tasks_[task].worker % workers].push_back(task);
}

void Job::start(const TaskRunner& runner) {
    for (std::size_t i = 0; i < tasks_.size(); ++i) waiting_[i].store(tasks_[i].waits_for, std::memory_order_relaxed);
    for (std::size_t i = 0; i < queues_.size(); ++i) present_[i].store(false, std::memory_order_relaxed);
    remaining_.store(static_cast<std::uint32_t>(tasks_.size()), std::memory_order_relaxed);
    failed_.store(taken_mark, std::memory_order_relaxed);
    contended_.store(false, std::memory_order_relaxed);
    control_word_ = control_word();
    runner_ = &runner;
}

bool Job::claim(std::uint32_t task) {
    std::uint32_t expected = 0;
    return waiting_[task].load(std::memory_order_relaxed) == 0 &&
           waiting_[task].compare_exchange_strong(expected, taken_mark, std::memory_order_acquire,
                                                  std::memory_order_relaxed);
}

void Job::run(std::uint32_t task, unsigned worker) {
    // Those before the first failure run in any case, so that the failure is the same in every order.
    if (task < failed_.load(std::memory_order_relaxed)) {
        Error error;
        if (!runner_->run(tasks_[task].begin, tasks_[task].end, worker, error)) {
            const std::scoped_lock lock(failure_);
            if (task < failed_.load(std::memory_order_relaxed)) {
                failed_.store(task, std::memory_order_relaxed);
                error_ = std::move(error);
            }
        }
    }
    for (const std::uint32_t next : tasks_[task].successors) waiting_[next].fetch_sub(1, std::memory_order_acq_rel);
    remaining_.fetch_sub(1, std::memory_order_acq_rel);
}

bool Job::take_over(unsigned worker, std::int64_t waited) {
    for (std::size_t other = 0; other < queues_.size(); ++other) {
        if (other == worker) continue;
        const std::int64_t limit = present_[other].load(std::memory_order_relaxed) ? patience : patience_with_absent;
        if (waited < limit) continue;
        std::uint32_t& cursor = cursors_[worker][other];
        while (cursor < queues_[other].size() && taken(queues_[other][cursor])) ++cursor;
        if (cursor < queues_[other].size() && claim(queues_[other][cursor])) {
            run(queues_[other][cursor], worker);
            return true;
        }
    }
    return false;
}

// A thread that others wait for runs all the time, unless its core is given to someone else.
void Job::watch(unsigned worker, std::int64_t waited) {
    const std::int64_t time = now();
    for (std::size_t other = 0; other < queues_.size(); ++other) {
        if (other == worker || !present_[other].load(std::memory_order_acquire)) continue;
        Progress& last = progress_[worker][other];
        const bool first = last.time < time - waited;
        if (!first && time - last.time < between_looks) continue;
        const std::int64_t ran = clocks_[other].nanoseconds();
        if (!first && ran >= 0 && ran - last.ran < (time - last.time) / 2) {
            contended_.store(true, std::memory_order_relaxed);
        }
        last = {time, ran};
    }
}

void Job::work(unsigned worker) {
    const std::uint32_t own_word = control_word();
    if (own_word != control_word_) set_control_word(control_word_);
    clocks_[worker] = ThreadClock(pthread_self());
    present_[worker].store(true, std::memory_order_release);
    const std::vector<std::uint32_t>& queue = queues_[worker];
    cursors_[worker].assign(queues_.size(), 0);
    std::uint32_t& next = cursors_[worker][worker];
    Wait wait;
    std::int64_t waited = 0;
    while (remaining_.load(std::memory_order_acquire) != 0) {
        while (next < queue.size() && taken(queue[next])) ++next;
        if (next < queue.size() && claim(queue[next])) {
            run(queue[next], worker);
        } else if (!take_over(worker, waited)) {
            const std::int64_t before = waited;
            waited = wait.turn();
            if (waited > long_wait && waited != before) watch(worker, waited);
            continue;
        }
        wait.reset();
        waited = 0;
    }
    if (own_word != control_word_) set_control_word(own_word);
}

bool Job::succeeded(Error& error) {
    if (failed_.load(std::memory_order_relaxed) == taken_mark) return true;
    error = std::move(error_);
    return false;
}

}  // namespace taut::vm
