// Runs a program. One machine runs one call at a time and keeps its memory for the next.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "vm/clock.h"
#include "vm/job.h"
#include "vm/levels.h"
#include "vm/program.h"

namespace taut::vm {

// What the machine asks of the language that embeds it.
class Host {
   public:
    virtual ~Host() = default;
    // Runs a fallback graph; the results are cleared registers.
    virtual bool fallback(std::uint32_t index, Register* const* inputs, std::uint32_t input_count,
                          Register* const* results, std::uint32_t result_count, Error& error) = 0;
    // Called from time to time; false stops the call.
    virtual bool poll(Error& error) = 0;
};

struct Limits {
    std::size_t memory;   // bytes
    std::int64_t depth;   // nested calls
    std::int64_t steps;   // jumps and calls
    bool poison = false;  // fills new memory with ones, a NaN in every float format
    unsigned workers = 1;  // threads of a call, with the caller's
};

struct ProfileEntry {
    std::int64_t calls = 0;
    std::int64_t nanoseconds = 0;
};
// One run of an instruction by a worker.
struct Span {
    unsigned worker;
    std::uint32_t function;
    std::uint32_t instruction;
    std::int64_t begin;  // as `now`
    std::int64_t end;
};
struct Profile {
    std::vector<std::vector<ProfileEntry>> entries;  // for each function, each instruction
    std::mutex mutex;                                // of the spans
    std::vector<Span> spans;                         // of kernels, copies and fallbacks
};

class Machine {
   public:
    Machine(const Program& program, const Limits& limits) : program_(program), limits_(limits) {
        results_.resize(program.functions[0].results);
        inputs_.resize(program.functions[0].parameters);
        jobs_.resize(program.regions);
    }
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;
    ~Machine();

    // Registers for the arguments, to be filled before a call; they stay until `clear`.
    std::vector<Register>& inputs() { return inputs_; }
    // What a successful call gave, in blocks of their own or borrowed fields of objects; stays until the next call.
    std::vector<Register>& results() { return results_; }

    bool run(Host& host, Error& error, Profile* profile = nullptr);
    void clear();

   private:
    class Members;
    struct Frame {
        const Function* function;
        const Instruction* next;
        Register* registers;
        std::int64_t* slots;
        std::uint8_t* arena;
        std::size_t arena_bytes;
        BumpStack::Mark mark;
    };

    template <bool profiled>
    bool execute(Host& host, Error& error, Profile* profile);
    enum class Outcome { done, failed, busy };
    // Runs the tasks of a region on several threads, unless another call has them.
    Outcome run_region(const Region& region, Error& error, Profile* profile);
    bool run_kernel(const Instruction& instruction, Register* registers, Error& error) const;
    bool run_copy(const Instruction& instruction, Register* registers, Error& error) const;
    bool run_levels(const Instruction& instruction, Register* registers, std::int64_t* slots, Host& host, Error& error);
    bool run_stack(const Instruction& instruction, Register* registers, const std::int64_t* slots, Error& error) const;
    static bool stack_row(std::uint32_t position, const Value& node, Tensor& row, Error& error);
    bool enter(const Function& function, Error& error);
    // Whether the arguments are as large as those of the last call, whose frame is still there.
    bool same_sizes() const;
    // Starts in that frame.
    void enter_again();
    void leave();
    bool refill(Host& host, Error& error);
    bool out_of_memory(Error& error) const;
    bool refuse_operand(const Instruction& instruction, std::uint32_t position, const Register* registers,
                        Error& error) const;
    std::string check_message(std::uint32_t message, const Frame& frame) const;
    void locate(Error& error, const Frame& frame, const Instruction& instruction) const;

    const Program& program_;
    const Limits limits_;
    BumpStack memory_;
    Levels levels_;
    std::vector<Frame> frames_;  // after a call that may be repeated that of function 0
    std::vector<Register> inputs_;
    std::vector<Register> results_;
    std::vector<Job*> jobs_;  // by region, once it has run
    std::int64_t budget_ = 0;
    std::int64_t steps_left_ = 0;
    std::int64_t next_poll_ = 0;
};

}  // namespace taut::vm
