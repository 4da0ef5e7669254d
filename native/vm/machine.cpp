#include "vm/machine.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace taut::vm {
namespace {

constexpr std::int64_t steps_between_clock_reads = 256;
constexpr std::int64_t nanoseconds_between_polls = 20'000'000;

}  // namespace

Machine::~Machine() {
    clear();
    for (Job* job : jobs_) {
        if (job != nullptr) job->release();
    }
}

bool Machine::out_of_memory(Error& error) const {
    return error.set(Fault::memory, "memory is exhausted, or the limit of " + std::to_string(limits_.memory) + " bytes",
                     "a program and inputs that need less", "raise memory_limit, or use a smaller batch");
}

bool Machine::enter(const Function& function, Error& error) {
    if (static_cast<std::int64_t>(frames_.size()) >= limits_.depth) {
        return error.set(Fault::program, "calls are nested more than " + std::to_string(limits_.depth) + " deep",
                         "a recursion that ends", "raise recursion_limit if the input is that deep");
    }
    const BumpStack::Mark mark = memory_.mark();
    const std::size_t register_bytes = aligned(function.registers * sizeof(Register));
    std::uint8_t* memory = memory_.take(register_bytes + function.slots * sizeof(std::int64_t), limits_.memory);
    if (memory == nullptr) return out_of_memory(error);
    auto* registers = reinterpret_cast<Register*>(memory);
    for (std::uint32_t i = 0; i < function.registers; ++i) new (registers + i) Register;
    auto* slots = reinterpret_cast<std::int64_t*>(memory + register_bytes);
    std::memset(slots, 0, function.slots * sizeof(std::int64_t));
    frames_.push_back({&function, function.instructions.data(), registers, slots, nullptr, 0, mark});
    return true;
}

void Machine::leave() {
    const Frame& frame = frames_.back();
    for (std::uint32_t i = 0; i < frame.function->registers; ++i) frame.registers[i].clear();
    memory_.release_to(frame.mark);
    frames_.pop_back();
}

bool Machine::same_sizes() const {
    const Frame& frame = frames_.front();
    return std::ranges::all_of(program_.repeat.sizes, [&](const Repeat::Size& size) {
        const Register& given = inputs_[size.parameter];
        if (size.dimension == Repeat::Size::whole) {
            return given.kind == Kind::integer && given.integer == frame.slots[size.slot];
        }
        return given.kind == Kind::tensor && size.dimension < given.tensor.rank() &&
               given.tensor.size(size.dimension) == frame.slots[size.slot];
    });
}

void Machine::enter_again() {
    Frame& frame = frames_.front();
    frame.next = program_.repeat.instructions.data();
    for (const std::uint32_t slot : program_.repeat.slots) frame.slots[slot] = 0;
    if (limits_.poison && frame.arena != nullptr) std::memset(frame.arena, 0xff, frame.arena_bytes);
}

void Machine::clear() {
    for (Register& reg : inputs_) reg.clear();
    for (Register& reg : results_) reg.clear();
}

bool Machine::refill(Host& host, Error& error) {
    if (steps_left_ <= 0) {
        return error.set(Fault::program, "the program takes more than " + std::to_string(limits_.steps) + " steps",
                         "a program that ends", "raise step_limit if it is meant to run that long");
    }
    budget_ = steps_left_ < steps_between_clock_reads ? steps_left_ : steps_between_clock_reads;
    steps_left_ -= budget_;
    --budget_;
    const std::int64_t time = now();
    if (time < next_poll_) return true;
    next_poll_ = time + nanoseconds_between_polls;
    return host.poll(error);
}

bool Machine::refuse_operand(const Instruction& instruction, std::uint32_t position, const Register* registers,
                             Error& error) const {
    const Kernel& kernel = *instruction.kernel;
    const OperandType& type = kernel.operands[position];
    const Register& reg = registers[instruction.list[position]];
    const std::string operand = "operand " + std::to_string(position) + " of kernel " + kernel.name;
    const std::string expected = std::string("a ") + traits(type.dtype).name + " tensor with " +
                                 std::to_string(type.rank) + " dimensions" + (type.written ? ", to be written" : "");
    if (reg.kind != Kind::tensor) return error.set(Fault::program, operand + " is " + kind_name(reg.kind), expected);
    if (reg.tensor.dtype != type.dtype || reg.tensor.rank() != type.rank) {
        return error.set(Fault::program, operand + " is " + reg.tensor.text(), expected);
    }
    if (type.written && reg.read_only) {
        return error.set(Fault::program, operand + " is an input, a constant or part of an object", expected);
    }
    return error.set(Fault::program, operand + " is on device " + std::to_string(reg.tensor.device),
                     "operands on one device", "transfer it first");
}

// "{3}" stands for the value of slot 3.
std::string Machine::check_message(std::uint32_t message, const Frame& frame) const {
    const std::string& text = program_.messages[message];
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const std::size_t end = text[i] == '{' ? text.find('}', i) : std::string::npos;
        const bool digits = end != std::string::npos && end > i + 1 && end < i + 9 &&
                            text.find_first_not_of("0123456789", i + 1) == end;
        const unsigned long slot = digits ? std::stoul(text.substr(i + 1, end - i - 1)) : 0;
        if (digits && slot < frame.function->slots) {
            out += std::to_string(frame.slots[slot]);
            i = end;
        } else {
            out += text[i];
        }
    }
    return out;
}

void Machine::locate(Error& error, const Frame& frame, const Instruction& instruction) const {
    if (error.fault == Fault::guard || error.fault == Fault::host) return;
    const std::size_t pc = instruction.number;
    std::string where = frame.function->name + ", instruction " + std::to_string(pc) + " (" +
                        opcode_name(instruction.opcode) + ")";
    if (!frame.function->labels.empty() && !frame.function->labels[pc].empty()) {
        where += ", " + frame.function->labels[pc];
    }
    error.message = where + ": " + error.message;
}

bool Machine::run(Host& host, Error& error, Profile* profile) {
    for (Register& reg : results_) reg.clear();
    steps_left_ = limits_.steps;
    budget_ = 0;
    next_poll_ = 0;
    bool done = false;
    if (!frames_.empty() && !same_sizes()) leave();
    try {
        const bool again = !frames_.empty();
        if (again) enter_again();
        if (again || enter(program_.functions[0], error)) {
            for (std::size_t i = 0; i < inputs_.size(); ++i) frames_[0].registers[i].share(inputs_[i]);
            done = profile != nullptr ? execute<true>(host, error, profile) : execute<false>(host, error, nullptr);
        }
    } catch (const std::bad_alloc&) {
        // Of the bookkeeping: lists of frames and fields.
        out_of_memory(error);
    }
    if (done && !program_.repeat.instructions.empty()) {
        for (const std::uint32_t reg : program_.repeat.registers) frames_.front().registers[reg].clear();
    } else {
        while (!frames_.empty()) leave();
    }
    return done;
}

}  // namespace taut::vm
