#include "vm/job.h"

#include <algorithm>

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
      places_(tasks_.size()),
      taken_(tasks_.size() / Line::size + workers),
      done_(tasks_.size() / Line::size + workers),
      seats_(workers) {
    for (Seat& seat : seats_) {
        seat.cursors.resize(workers);
        seat.progress.resize(workers);
    }
    for (std::uint32_t task = 0; task < tasks_.size(); ++task) queues_[tasks_[task].worker % workers].push_back(task);
    std::uint32_t place = 0;
    for (const std::vector<std::uint32_t>& queue : queues_) {
        for (const std::uint32_t task : queue) places_[task] = place++;
        place = (place + Line::size - 1) / Line::size * Line::size;
    }
}

void Job::start(const TaskRunner& runner) {
    if (++number_ == 0) {
        taken_.clear();
        done_.clear();
        for (Seat& seat : seats_) {
            seat.ran.store(0, std::memory_order_relaxed);
            seat.present.store(0, std::memory_order_relaxed);
        }
        number_ = 1;
    }
    failed_.store(none, std::memory_order_relaxed);
    contended_.store(false, std::memory_order_relaxed);
    control_word_ = control_word();
    runner_ = &runner;
}

bool Job::claim(std::uint32_t task) {
    for (const std::uint32_t other : tasks_[task].before) {
        if (!done(other)) return false;
    }
    return taken_[places_[task]].exchange(number_, std::memory_order_relaxed) != number_;
}

bool Job::finished() const {
    std::uint64_t ran = 0;
    for (const Seat& seat : seats_) {
        const std::uint64_t own = seat.ran.load(std::memory_order_acquire);
        if (own >> 32 == number_) ran += own & UINT32_MAX;
    }
    return ran == tasks_.size();
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
    done_[places_[task]].store(number_, std::memory_order_release);
    std::atomic<std::uint64_t>& ran = seats_[worker].ran;
    ran.store(ran.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

bool Job::take_over(unsigned worker, std::int64_t waited) {
    for (std::size_t other = 0; other < queues_.size(); ++other) {
        if (other == worker) continue;
        const std::int64_t limit = present(other) ? patience : patience_with_absent;
        if (waited < limit) continue;
        std::uint32_t& next = seats_[worker].cursors[other];
        while (next < queues_[other].size() && taken(queues_[other][next])) ++next;
        if (next < queues_[other].size() && claim(queues_[other][next])) {
            run(queues_[other][next], worker);
            return true;
        }
    }
    return false;
}

// A thread that others wait for runs all the time, unless its core is given to someone else.
void Job::watch(unsigned worker, std::int64_t waited) {
    const std::int64_t time = now();
    for (std::size_t other = 0; other < queues_.size(); ++other) {
        if (other == worker || !present(other)) continue;
        Progress& last = seats_[worker].progress[other];
        const bool first = last.time < time - waited;
        if (!first && time - last.time < between_looks) continue;
        const std::int64_t ran = seats_[other].clock.nanoseconds();
        if (!first && ran >= 0 && ran - last.ran < (time - last.time) / 2) {
            contended_.store(true, std::memory_order_relaxed);
        }
        last = {time, ran};
    }
}

void Job::work(unsigned worker) {
    const std::uint32_t own_word = control_word();
    if (own_word != control_word_) set_control_word(control_word_);
    Seat& seat = seats_[worker];
    seat.clock = ThreadClock(pthread_self());
    seat.ran.store(std::uint64_t{number_} << 32, std::memory_order_relaxed);
    seat.present.store(number_, std::memory_order_release);
    std::fill(seat.cursors.begin(), seat.cursors.end(), 0);
    const std::vector<std::uint32_t>& queue = queues_[worker];
    std::size_t next = 0;
    Wait wait;
    std::int64_t waited = 0;
    while (true) {
        while (next < queue.size() && taken(queue[next])) ++next;
        if (next < queue.size() && claim(queue[next])) {
            run(queue[next], worker);
        } else if (next == queue.size() && finished()) {
            break;
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

bool Job::missed(unsigned workers) const {
    for (unsigned worker = 1; worker < workers; ++worker) {
        if (!present(worker)) return true;
    }
    return false;
}

bool Job::succeeded(Error& error) {
    if (failed_.load(std::memory_order_relaxed) == none) return true;
    error = std::move(error_);
    return false;
}

}  // namespace taut::vm
