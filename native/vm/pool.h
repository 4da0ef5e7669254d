// The worker threads of the process. A call that finds them with another call does without.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "vm/job.h"

namespace taut::vm {

// CPUs that the calling thread may use.
unsigned usable_cpus();

// How often a call did without the workers, because another had them or they had to share their cores.
std::uint64_t refused_leases();

// What the workers of the process have run so far; 0 where the system does not tell.
std::int64_t worker_nanoseconds();

class Pool {
   public:
    // Holds the workers for one job; worker 0 is the caller.
    class Lease {
       public:
        explicit Lease(unsigned workers);
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease();
        // False where another call has them, or where they lately had to share their cores.
        explicit operator bool() const { return pool_ != nullptr; }
        // Runs a job that the caller holds alone.
        void run(Job& job);

       private:
        Pool* pool_ = nullptr;
        unsigned workers_;
    };

    Pool() = default;
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    ~Pool();

   private:
    class Worker;
    friend std::int64_t worker_nanoseconds();
    static Pool* current();
    bool grow(unsigned workers);
    // Gives each worker a CPU of its own that is not the caller's, as long as there are enough.
    void place(unsigned workers);

    std::mutex mutex_;  // of whoever has the workers
    std::int64_t rests_until_ = 0;
    std::int64_t rest_ = 1;  // after a job that shares its cores, in durations of it
    bool calm_ = true;       // the last job was not disturbed
    std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace taut::vm
