// Regions on several threads.
#include <algorithm>

#include "vm/machine.h"
#include "vm/pool.h"
#include "vm/spin.h"

namespace taut::vm {
namespace {

constexpr int turns_for_the_last = 100;

}  // namespace

class Machine::Members final : public TaskRunner {
   public:
    Members(const Machine& machine, const Frame& frame, Profile* profile)
        : machine_(machine), frame_(frame), profile_(profile) {}

    bool run(std::uint32_t begin, std::uint32_t end, unsigned worker, Error& error) const override {
        for (std::uint32_t pc = begin; pc < end; ++pc) {
            const Instruction& instruction = frame_.function->instructions[pc];
            const std::int64_t started = profile_ == nullptr ? 0 : now();
            const bool done = instruction.opcode == Opcode::kernel
                                  ? machine_.run_kernel(instruction, frame_.registers, error)
                                  : machine_.run_copy(instruction, frame_.registers, error);
            if (profile_ != nullptr) record(pc, worker, started);
            if (!done) {
                machine_.locate(error, frame_, instruction);
                return false;
            }
        }
        return true;
    }

   private:
    void record(std::uint32_t pc, unsigned worker, std::int64_t started) const {
        const std::int64_t time = now();
        const auto function = static_cast<std::uint32_t>(frame_.function - machine_.program_.functions.data());
        const std::scoped_lock lock(profile_->mutex);
        ProfileEntry& entry = profile_->entries[function][pc];
        ++entry.calls;
        entry.nanoseconds += time - started;
        profile_->spans.push_back({worker, function, pc, started, time});
    }

    const Machine& machine_;
    const Frame& frame_;
    Profile* const profile_;
};

Machine::Outcome Machine::run_region(const Region& region, Error& error, Profile* profile) {
    const unsigned workers = std::min(limits_.workers, region.workers);
    Pool::Lease lease(workers);
    if (!lease) return Outcome::busy;
    Job*& job = jobs_[region.number];
    // Who took part in the last run may be on its way out.
    for (int turn = 0; turn < turns_for_the_last && job != nullptr && !job->alone(); ++turn) pause();
    if (job != nullptr && !job->alone()) {
        job->release();
        job = nullptr;
    }
    if (job == nullptr) job = new Job(region, workers);
    const Members members(*this, frames_.back(), profile);
    job->start(members);
    lease.run(*job);
    return job->succeeded(error) ? Outcome::done : Outcome::failed;
}

}  // namespace taut::vm
