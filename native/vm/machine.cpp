#include "vm/machine.h"

#include <chrono>
#include <cstring>
#include <new>

#include "vm/kernel_message.h"

namespace taut::vm {
namespace {

constexpr std::int64_t steps_between_clock_reads = 256;
constexpr std::int64_t nanoseconds_between_polls = 20'000'000;

std::int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

thread_local char kernel_error[512] = "";

const char* kind_name(Kind kind) {
    switch (kind) {
        case Kind::none: return "nothing";
        case Kind::integer: return "an integer";
        case Kind::tensor: return "a tensor";
        case Kind::object: return "an object";
    }
    return "";
}

bool wrong_kind(Error& error, std::uint32_t number, const Register& reg, const char* expected) {
    return error.set(Fault::program, "register " + std::to_string(number) + " holds " + kind_name(reg.kind), expected);
}

std::int64_t item(const Tensor& tensor) {
    const std::uint8_t* at = tensor.buffer.host;
    switch (tensor.dtype) {
        case DType::int64: return *reinterpret_cast<const std::int64_t*>(at);
        case DType::int32: return *reinterpret_cast<const std::int32_t*>(at);
        case DType::int16: return *reinterpret_cast<const std::int16_t*>(at);
        case DType::int8: return *reinterpret_cast<const std::int8_t*>(at);
        case DType::boolean: return *at != 0;
        default: return *at;
    }
}

bool has_item(const Tensor& tensor) {
    return tensor.elements() == 1 && tensor.dtype >= DType::int64 && tensor.device == 0;
}

std::string describe(const Tensor& tensor) {
    return std::string(traits(tensor.dtype).name) + " " + tensor.shape_text();
}

bool same_shape(const Tensor& a, const Tensor& b) {
    if (a.rank() != b.rank() || a.dtype != b.dtype || a.device != b.device) return false;
    for (int i = 0; i < a.rank(); ++i) {
        if (a.dims[i].extent != b.dims[i].extent) return false;
    }
    return true;
}

}  // namespace

int report_kernel_error(const char* message) {
    std::strncpy(kernel_error, message, sizeof(kernel_error) - 1);
    return 1;
}

std::string take_kernel_error() {
    std::string text = kernel_error;
    kernel_error[0] = 0;
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    return text;
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
        return error.set(Fault::program, operand + " is " + describe(reg.tensor), expected);
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
    const auto pc = static_cast<std::size_t>(&instruction - frame.function->instructions.data());
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
    try {
        if (enter(program_.functions[0], error)) {
            for (std::size_t i = 0; i < inputs_.size(); ++i) frames_[0].registers[i].share(inputs_[i]);
            done = profile != nullptr ? execute<true>(host, error, profile) : execute<false>(host, error, nullptr);
        }
    } catch (const std::bad_alloc&) {
        // Of the bookkeeping: lists of frames and fields.
        out_of_memory(error);
    }
    while (!frames_.empty()) leave();
    return done;
}

template <bool profiled>
bool Machine::execute(Host& host, Error& error, Profile* profile) {
    Frame* frame = &frames_.back();
    const Instruction* instruction = frame->next;
    Register* registers = frame->registers;
    std::int64_t* slots = frame->slots;
    std::int64_t sizes[max_rank];
    std::int64_t strides[max_rank];
    std::size_t bytes = 0;
    std::int64_t started = 0;
    ProfileEntry* entry = nullptr;

    const auto fail = [&] {
        locate(error, *frame, *instruction);
        return false;
    };
    const auto program_error = [&](std::string message, std::string expected = {}) {
        error.set(Fault::program, std::move(message), std::move(expected));
        return fail();
    };
    const auto kind_error = [&](std::uint32_t number, const char* expected) {
        wrong_kind(error, number, registers[number], expected);
        return fail();
    };
    const auto memory_error = [&] {
        out_of_memory(error);
        return fail();
    };
    const auto resume = [&] {
        frame = &frames_.back();
        instruction = frame->next;
        registers = frame->registers;
        slots = frame->slots;
    };

    while (true) {
        if constexpr (profiled) {
            const std::int64_t time = now();
            if (entry != nullptr) entry->nanoseconds += time - started;
            const auto function = static_cast<std::size_t>(frame->function - program_.functions.data());
            entry = &(*profile)[function][static_cast<std::size_t>(instruction - frame->function->instructions.data())];
            ++entry->calls;
            started = now();
        }
        const Instruction& now_at = *instruction;
        const std::uint32_t a = now_at.a;
        const std::uint32_t b = now_at.b;
        switch (now_at.opcode) {
            case Opcode::shape:
                if (!run_shape(now_at.steps, slots)) {
                    return program_error("a size overflows or something is divided by zero", "smaller inputs");
                }
                break;
            case Opcode::arena: {
                if (slots[a] < 0) return program_error("the size is " + std::to_string(slots[a]), "0 or more");
                const auto wanted = static_cast<std::size_t>(slots[a]);
                // A second, larger arena leaves the first in place, as tensors may still be there.
                if (frame->arena == nullptr || wanted > frame->arena_bytes) {
                    frame->arena = memory_.take(wanted, limits_.memory);
                    if (frame->arena == nullptr) return memory_error();
                    frame->arena_bytes = wanted;
                    if (limits_.poison) std::memset(frame->arena, 0xff, frame->arena_bytes);
                }
                break;
            }
            case Opcode::alloc: {
                Register& reg = registers[a];
                for (int i = 0; i < now_at.rank; ++i) sizes[i] = slots[now_at.list[i]];
                const std::int64_t offset = slots[b];
                reg.clear();
                reg.tensor.start(now_at.dtype, now_at.rank, nullptr);
                if (!set_contiguous(reg.tensor, sizes, bytes)) return program_error("a size is negative or too large");
                if (offset < 0 || offset % traits(now_at.dtype).bytes != 0 || bytes > frame->arena_bytes ||
                    static_cast<std::size_t>(offset) > frame->arena_bytes - bytes) {
                    return program_error("bytes " + std::to_string(offset) + " + " + std::to_string(bytes) +
                                             " are not in the arena, or not aligned",
                                         "an arena of " + std::to_string(frame->arena_bytes) + " bytes");
                }
                reg.tensor.buffer.host = frame->arena + offset;
                reg.tensor.device = 0;
                reg.tensor.source = Source::arena;
                reg.tensor.depth = static_cast<std::uint32_t>(frames_.size());
                reg.read_only = false;
                reg.kind = Kind::tensor;
                break;
            }
            case Opcode::new_: {
                Register& reg = registers[a];
                for (int i = 0; i < now_at.rank; ++i) sizes[i] = slots[now_at.list[i]];
                reg.clear();
                reg.tensor.start(now_at.dtype, now_at.rank, nullptr);
                if (!set_contiguous(reg.tensor, sizes, bytes)) return program_error("a size is negative or too large");
                Storage* storage = new_storage(bytes, limits_.memory);
                if (storage == nullptr) return memory_error();
                if (limits_.poison) std::memset(storage->data, 0xff, storage->bytes);
                reg.tensor.storage = storage;
                reg.tensor.buffer.host = storage->data;
                reg.tensor.device = 0;
                reg.tensor.source = Source::storage;
                reg.read_only = false;
                reg.kind = Kind::tensor;
                break;
            }
            case Opcode::constant: {
                Register& reg = registers[a];
                reg.clear();
                reg.tensor.share(program_.constants[b]);
                reg.read_only = true;
                reg.kind = Kind::tensor;
                break;
            }
            case Opcode::view: {
                const Register& base = registers[b];
                if (base.kind != Kind::tensor) return kind_error(b, "a tensor");
                for (int i = 0; i < now_at.rank; ++i) sizes[i] = slots[now_at.list[i]];
                for (int i = 0; i < now_at.rank; ++i) strides[i] = slots[now_at.list[now_at.rank + i]];
                Register made;
                Register& target = a == b ? made : registers[a];
                target.clear();
                if (!vm::view_tensor(base.tensor, slots[now_at.c], sizes, strides, now_at.rank, target.tensor)) {
                    return program_error("the view leaves " + describe(base.tensor), "a view inside the tensor");
                }
                target.kind = Kind::tensor;
                target.read_only = base.read_only;
                if (a == b) {
                    registers[a].share(made);
                    made.clear();
                }
                break;
            }
            case Opcode::kernel: {
                const Kernel& kernel = *now_at.kernel;
                void* arguments[64];
                const std::uint8_t device = now_at.n > 0 ? registers[now_at.list[0]].tensor.device : 0;
                for (std::uint32_t i = 0; i < now_at.n; ++i) {
                    Register& reg = registers[now_at.list[i]];
                    const OperandType& type = kernel.operands[i];
                    if (reg.kind != Kind::tensor || reg.tensor.dtype != type.dtype || reg.tensor.rank() != type.rank ||
                        (type.written && reg.read_only) || reg.tensor.device != device) [[unlikely]] {
                        refuse_operand(now_at, i, registers, error);
                        return fail();
                    }
                    arguments[i] = &reg.tensor.buffer;
                }
                if (const int code = kernel.function(arguments); code != 0) [[unlikely]] {
                    std::string said = take_kernel_error();
                    if (said.empty()) said = "error " + std::to_string(code);
                    error.set(Fault::kernel, "kernel " + kernel.name + " failed: " + said);
                    return fail();
                }
                break;
            }
            case Opcode::fallback: {
                std::vector<Register*> operands;
                for (std::uint32_t i = 0; i < now_at.n + now_at.m; ++i) operands.push_back(&registers[now_at.list[i]]);
                // Results may take the place of operands.
                std::vector<Register> made(now_at.m);
                std::vector<Register*> results;
                for (Register& reg : made) results.push_back(&reg);
                const bool done = host.fallback(a, operands.data(), now_at.n, results.data(), now_at.m, error);
                for (std::uint32_t i = 0; i < now_at.m; ++i) {
                    if (done) operands[now_at.n + i]->share(made[i]);
                    made[i].clear();
                }
                if (!done) return fail();
                break;
            }
            case Opcode::bind: {
                const Register& reg = registers[b];
                if (reg.kind != Kind::tensor) return kind_error(b, "a tensor");
                if (now_at.rank >= reg.tensor.rank()) {
                    return program_error("dimension " + std::to_string(now_at.rank) + " of " + describe(reg.tensor) +
                                         " does not exist");
                }
                slots[a] = reg.tensor.size(now_at.rank);
                break;
            }
            case Opcode::item: {
                const Register& reg = registers[b];
                if (reg.kind != Kind::tensor) return kind_error(b, "a tensor");
                if (!has_item(reg.tensor)) {
                    return program_error("register " + std::to_string(b) + " holds " + describe(reg.tensor),
                                         "one integer or bool on device 0");
                }
                slots[a] = item(reg.tensor);
                break;
            }
            case Opcode::load:
                if (registers[b].kind != Kind::integer) return kind_error(b, "an integer");
                slots[a] = registers[b].integer;
                break;
            case Opcode::store: registers[a].set_integer(slots[b]); break;
            case Opcode::check:
                if (slots[a] == 0) {
                    error.set(Fault::guard, check_message(b, *frame));
                    return fail();
                }
                break;
            case Opcode::jump:
                if (--budget_ < 0 && !refill(host, error)) return fail();
                instruction = frame->function->instructions.data() + a;
                continue;
            case Opcode::branch:
                if (slots[a] == 0) {
                    if (--budget_ < 0 && !refill(host, error)) return fail();
                    instruction = frame->function->instructions.data() + b;
                    continue;
                }
                break;
            case Opcode::call: {
                if (--budget_ < 0 && !refill(host, error)) return fail();
                frame->next = instruction;
                if (!enter(program_.functions[a], error)) {
                    frame = &frames_.back();
                    return fail();
                }
                const Instruction& call = now_at;
                Register* arguments = frames_.back().registers;
                for (std::uint32_t i = 0; i < call.n; ++i) arguments[i].share(registers[call.list[i]]);
                resume();
                continue;
            }
            case Opcode::return_: {
                const bool outermost = frames_.size() == 1;
                Frame* caller = outermost ? nullptr : frame - 1;
                const auto depth = static_cast<std::uint32_t>(frames_.size());
                for (std::uint32_t i = 0; i < now_at.n; ++i) {
                    Register& from = registers[now_at.list[i]];
                    Register& to = outermost ? results_[i] : caller->registers[caller->next->list[caller->next->n + i]];
                    const Tensor& tensor = from.tensor;
                    const bool stays =
                        from.kind != Kind::tensor || tensor.source == Source::storage ||
                        (!outermost && (tensor.source == Source::borrowed || tensor.depth != depth));
                    if (outermost && from.kind == Kind::none) {
                        return program_error("result " + std::to_string(i) + " is nothing", "a value");
                    }
                    if (outermost && from.kind == Kind::tensor && tensor.device != 0) {
                        return program_error("result " + std::to_string(i) + " is on device " +
                                                 std::to_string(tensor.device),
                                             "results on device 0");
                    }
                    if (stays) {
                        to.share(from);
                    } else {
                        to.clear();
                        if (!copy_tensor(tensor, to.tensor, limits_.memory)) return memory_error();
                        to.kind = Kind::tensor;
                        to.read_only = false;
                    }
                }
                if (outermost) {
                    if constexpr (profiled) entry->nanoseconds += now() - started;
                    return true;
                }
                leave();
                resume();
                break;
            }
            case Opcode::move: registers[a].share(registers[b]); break;
            case Opcode::clear: registers[a].clear(); break;
            case Opcode::make: {
                Object* object = new_object(now_at.value, now_at.n, limits_.memory);
                if (object == nullptr) return memory_error();
                for (std::uint32_t i = 0; i < now_at.n; ++i) {
                    object->fields.emplace_back();
                    if (!registers[now_at.list[i]].to_value(object->fields.back(), limits_.memory)) {
                        release(object);
                        return memory_error();
                    }
                }
                registers[a].set_object(object);
                break;
            }
            case Opcode::field: {
                const Register& reg = registers[b];
                if (reg.kind != Kind::object) return kind_error(b, "an object");
                const std::int64_t index = slots[now_at.c];
                const auto count = static_cast<std::int64_t>(reg.object->fields.size());
                if (index < 0 || index >= count) {
                    return program_error("field " + std::to_string(index) + " does not exist",
                                         "one of " + std::to_string(count) + " fields");
                }
                registers[a].from_value(reg.object->fields[static_cast<std::size_t>(index)]);
                break;
            }
            case Opcode::tag:
                if (registers[b].kind != Kind::object) return kind_error(b, "an object");
                slots[a] = registers[b].object->tag;
                break;
            case Opcode::length:
                if (registers[b].kind != Kind::object) return kind_error(b, "an object");
                slots[a] = static_cast<std::int64_t>(registers[b].object->fields.size());
                break;
            case Opcode::append: {
                const Register& from = registers[b];
                if (from.kind != Kind::object) return kind_error(b, "an object");
                Value field;
                if (!registers[now_at.c].to_value(field, limits_.memory)) return memory_error();
                Object* object = from.object;
                // Nobody else sees the list that grows in its own register.
                if (a == b && object->references.load(std::memory_order_acquire) == 1) {
                    if (!grow_object(object, limits_.memory)) return memory_error();
                    object->fields.push_back(std::move(field));
                    break;
                }
                Object* made = new_object(object->tag, object->fields.size() + 1, limits_.memory);
                if (made == nullptr) return memory_error();
                for (const Value& value : object->fields) made->fields.push_back(value);
                made->fields.push_back(std::move(field));
                registers[a].set_object(made);
                break;
            }
            case Opcode::copy: {
                Register& to = registers[a];
                const Register& from = registers[b];
                if (to.kind != Kind::tensor) return kind_error(a, "a tensor");
                if (from.kind != Kind::tensor) return kind_error(b, "a tensor");
                if (to.read_only) return program_error("register " + std::to_string(a) + " may not be written");
                if (!same_shape(to.tensor, from.tensor)) {
                    return program_error("copies " + describe(from.tensor) + " to " + describe(to.tensor),
                                         "equal dtypes, shapes and devices");
                }
                copy_elements(from.tensor, to.tensor);
                break;
            }
            case Opcode::transfer: {
                if (registers[b].kind != Kind::tensor) return kind_error(b, "a tensor");
                Register made;
                if (!copy_tensor(registers[b].tensor, made.tensor, limits_.memory)) return memory_error();
                made.tensor.device = now_at.rank;
                made.kind = Kind::tensor;
                registers[a].share(made);
                made.clear();
                break;
            }
            case Opcode::place:
                if (registers[a].kind != Kind::tensor) return kind_error(a, "a tensor");
                if (registers[a].read_only) return program_error("register " + std::to_string(a) + " may not be written");
                registers[a].tensor.device = now_at.rank;
                break;
            case Opcode::fill: {
                Register& reg = registers[a];
                if (reg.kind != Kind::tensor) return kind_error(a, "a tensor");
                if (reg.read_only) return program_error("register " + std::to_string(a) + " may not be written");
                fill_elements(reg.tensor, static_cast<double>(slots[b]), slots[b]);
                break;
            }
        }
        ++instruction;
    }
}

}  // namespace taut::vm
