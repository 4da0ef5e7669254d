#include "vm/pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <new>
#include <thread>

#include "vm/spin.h"

namespace taut::vm {
namespace {

constexpr std::int64_t nanoseconds_before_sleep = 2'000'000;
// After a job that had to share its cores the workers rest as long, and after each more twice as many times as long, up
// to this: a passing disturbance costs little, and a lasting one is tried again seldom. Time halves it again, several of
// the slices in which the system gives a core to threads that share it; but only after a job that was not disturbed, as
// else those that come seldom would never rest longer.
constexpr std::int64_t longest_rest = 64;
constexpr std::int64_t time_to_halve_rest = 20'000'000;
// Kernels keep tiles on the stack.
constexpr std::size_t stack_bytes = std::size_t{4} << 20;

std::atomic<Pool*> pool{nullptr};
std::atomic<std::uint64_t> refused{0};
std::once_flag fork_handler;

struct Closer {
    ~Closer() { delete pool.exchange(nullptr); }
} closer;

#ifdef __linux__
std::vector<int> allowed_cpus() {
    std::vector<int> found;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return found;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(cpu, &set)) found.push_back(cpu);
    }
    return found;
}
#endif

}  // namespace

unsigned usable_cpus() {
#ifdef __linux__
    if (const std::size_t count = allowed_cpus().size(); count > 0) return static_cast<unsigned>(count);
#endif
    return std::max(1U, std::thread::hardware_concurrency());
}

std::uint64_t refused_leases() { return refused.load(std::memory_order_relaxed); }

class Pool::Worker {
   public:
    explicit Worker(unsigned number) : number_(number) {}

    bool begin() {
        pthread_attr_t attributes;
        if (pthread_attr_init(&attributes) != 0) return false;
        pthread_attr_setstacksize(&attributes, stack_bytes);
        const bool started = pthread_create(&thread_, &attributes, &Worker::enter, this) == 0;
        pthread_attr_destroy(&attributes);
        return started;
    }

    std::int64_t nanoseconds() const { return std::max<std::int64_t>(ThreadClock(thread_).nanoseconds(), 0); }

    void end() {
        stop_.store(true);
        wake();
        pthread_join(thread_, nullptr);
    }

    // Hands a job over, of which the worker gets a reference.
    void offer(Job& job) {
        job.retain();
        job_.exchange(&job);
        if (sleeping_.load() != 0) wake();
    }

    // Takes the job back if the worker has not come.
    void retract() {
        if (job_.load(std::memory_order_relaxed) == nullptr) return;
        if (Job* job = job_.exchange(nullptr)) job->release();
    }

    int cpu() const { return cpu_; }
    void pin(int cpu) {
#ifdef __linux__
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        pthread_setaffinity_np(thread_, sizeof(set), &set);
#endif
        cpu_ = cpu;
    }

   private:
    static void* enter(void* self) {
        static_cast<Worker*>(self)->loop();
        return nullptr;
    }

    void loop() {
        Wait wait;
        while (!stop_.load(std::memory_order_relaxed)) {
            Job* job = job_.load(std::memory_order_relaxed) == nullptr ? nullptr : job_.exchange(nullptr);
            if (job != nullptr) {
                job->work(number_);
                job->release();
                wait.reset();
            } else if (wait.turn() > nanoseconds_before_sleep) {
                sleep();
                wait.reset();
            }
        }
    }

    void sleep() {
        sleeping_.store(1);
        if (job_.load() == nullptr && !stop_.load()) sleeping_.wait(1);
        sleeping_.store(0);
    }

    void wake() {
        sleeping_.store(0);
        sleeping_.notify_one();
    }

    const unsigned number_;
    pthread_t thread_{};
    int cpu_ = -1;
    alignas(64) std::atomic<Job*> job_{nullptr};
    std::atomic<std::uint32_t> sleeping_{0};
    std::atomic<bool> stop_{false};
};

std::int64_t worker_nanoseconds() {
    Pool* const found = Pool::current();
    const std::scoped_lock lock(found->mutex_);
    std::int64_t sum = 0;
    for (const auto& worker : found->workers_) sum += worker->nanoseconds();
    return sum;
}

Pool* Pool::current() {
    std::call_once(fork_handler, [] {
        // The threads do not come along; what they may hold stays as it is.
        pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
    });
    Pool* found = pool.load(std::memory_order_acquire);
    if (found != nullptr) return found;
    auto made = std::make_unique<Pool>();
    if (pool.compare_exchange_strong(found, made.get())) return made.release();
    return found;
}

bool Pool::grow(unsigned workers) {
    while (workers_.size() < workers) {
        auto worker = std::make_unique<Worker>(static_cast<unsigned>(workers_.size() + 1));
        if (!worker->begin()) return false;
        workers_.push_back(std::move(worker));
    }
    return true;
}

void Pool::place(unsigned workers) {
#ifdef __linux__
    const int caller = sched_getcpu();
    const auto end = workers_.begin() + workers;
    const auto misplaced = [&](const auto& worker) { return worker->cpu() < 0 || worker->cpu() == caller; };
    if (caller < 0 || std::none_of(workers_.begin(), end, misplaced)) return;
    std::vector<int> free = allowed_cpus();
    std::erase(free, caller);
    for (auto worker = workers_.begin(); worker != end; ++worker) std::erase(free, (*worker)->cpu());
    for (auto worker = workers_.begin(); worker != end && !free.empty(); ++worker) {
        if (!misplaced(*worker)) continue;
        (*worker)->pin(free.front());
        free.erase(free.begin());
    }
#else
    (void)workers;
#endif
}

Pool::~Pool() {
    const std::scoped_lock lock(mutex_);
    for (const auto& worker : workers_) worker->end();
}

Pool::Lease::Lease(unsigned workers) : workers_(workers) {
    Pool* found = current();
    const bool locked = found->mutex_.try_lock();
    if (!locked || (found->rests_until_ > 0 && now() < found->rests_until_)) {
        if (locked) found->mutex_.unlock();
        refused.fetch_add(1, std::memory_order_relaxed);
        return;
    }
    pool_ = found;
    if (!found->grow(workers - 1)) workers_ = static_cast<unsigned>(found->workers_.size() + 1);
}

Pool::Lease::~Lease() {
    if (pool_ != nullptr) pool_->mutex_.unlock();
}

void Pool::Lease::run(Job& job) {
    const std::int64_t started = now();
    pool_->place(workers_ - 1);
    for (unsigned i = 0; i + 1 < workers_; ++i) pool_->workers_[i]->offer(job);
    job.work(0);
    for (unsigned i = 0; i + 1 < workers_; ++i) pool_->workers_[i]->retract();
    const bool contended = job.contended();
    const bool missed = job.missed(workers_);
    if (contended || missed) {
        const std::int64_t calm = pool_->calm_ ? std::max<std::int64_t>(started - pool_->rests_until_, 0) : 0;
        pool_->rest_ = std::max<std::int64_t>(pool_->rest_ >> std::min<std::int64_t>(calm / time_to_halve_rest, 62), 1);
        const std::int64_t time = now();
        std::int64_t rest = pool_->rest_ * (time - started);
        // Who did not come may have been asleep, and should not be so again by the next time.
        if (!contended) rest = std::min(rest, nanoseconds_before_sleep / 2);
        pool_->rests_until_ = time + rest;
        pool_->rest_ = std::min(2 * pool_->rest_, longest_rest);
    }
    pool_->calm_ = !contended && !missed;
}

}  // namespace taut::vm
