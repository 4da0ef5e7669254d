// One run of a region by several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "vm/clock.h"
#include "vm/program.h"

namespace taut::vm {

// Runs the instructions of tasks; called from several threads at once.
class TaskRunner {
   public:
    virtual ~TaskRunner() = default;
    virtual bool run(std::uint32_t begin, std::uint32_t end, unsigned worker, Error& error) const = 0;
};

// Each participant takes the tasks of its own queue in order, and those of a queue whose owner does not come. Who starts
// a task holds the job open until it is done; apart from that a participant touches only the job itself, which it holds a
// reference to, so the caller may go on while another is still on its way out.
class Job {
   public:
    // `workers` participants share the queues.
    Job(const Region& region, unsigned workers);

    void retain() { holders_.fetch_add(1, std::memory_order_relaxed); }
    void release() {
        if (holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    }
    // Whether nobody but the caller holds it, so that it may start anew.
    bool alone() const { return holders_.load(std::memory_order_acquire) == 1; }

    void start(const TaskRunner& runner);
    // Takes part until all tasks are done.
    void work(unsigned worker);
    // Whether a participant was waited for while others had its core.
    bool contended() const { return contended_.load(std::memory_order_relaxed); }
    // Whether one of so many participants has not come.
    bool missed(unsigned workers) const;
    // After all are done; the failure is that of the first task in the order of the code.
    bool succeeded(Error& error);

   private:
    // Flags of tasks, those of one queue together: only their owner writes them, as long as it comes. One is set when it
    // holds the number of the run, so that a run begins without writing to lines that other cores have.
    struct alignas(64) Line {
        static constexpr std::uint32_t size = 16;
        std::atomic<std::uint32_t> flags[size];
    };
    class Flags {
       public:
        explicit Flags(std::size_t lines) : lines_(new Line[lines]), count_(lines) { clear(); }
        std::atomic<std::uint32_t>& operator[](std::uint32_t place) const {
            return lines_[place / Line::size].flags[place % Line::size];
        }
        void clear() {
            for (std::size_t i = 0; i < count_ * Line::size; ++i) (*this)[i].store(0, std::memory_order_relaxed);
        }

       private:
        std::unique_ptr<Line[]> lines_;
        std::size_t count_;
    };
    struct Progress {
        std::int64_t time;
        std::int64_t ran;
    };
    // What one participant writes and others read.
    struct alignas(64) Seat {
        std::atomic<std::uint64_t> ran{0};      // the number of the run, then how many tasks of it
        std::atomic<std::uint32_t> present{0};  // as the flags
        ThreadClock clock;                      // of who is present
        std::vector<std::uint32_t> cursors;     // for each queue, how far its tasks are taken
        std::vector<Progress> progress;         // of each other participant
    };

    ~Job() = default;
    bool claim(std::uint32_t task);
    bool taken(std::uint32_t task) const { return taken_[places_[task]].load(std::memory_order_relaxed) == number_; }
    bool done(std::uint32_t task) const { return done_[places_[task]].load(std::memory_order_acquire) == number_; }
    bool present(std::size_t worker) const {
        return seats_[worker].present.load(std::memory_order_acquire) == number_;
    }
    bool finished() const;
    void run(std::uint32_t task, unsigned worker);
    bool take_over(unsigned worker, std::int64_t waited);
    void watch(unsigned worker, std::int64_t waited);

    static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

    // A copy of what the region says, which a late participant may outlive.
    const std::vector<Region::Task> tasks_;
    std::vector<std::vector<std::uint32_t>> queues_;
    std::vector<std::uint32_t> places_;  // of tasks in the flags
    Flags taken_;
    Flags done_;
    std::vector<Seat> seats_;  // by worker
    std::uint32_t number_ = 0;  // of the run
    std::uint32_t control_word_ = 0;
    const TaskRunner* runner_ = nullptr;
    std::mutex failure_;
    Error error_;
    alignas(64) std::atomic<std::uint32_t> failed_{none};
    std::atomic<std::int32_t> holders_{1};
    std::atomic<bool> contended_{false};
};

}  // namespace taut::vm
