// The instructions.
#include <cstring>

#include "vm/machine.h"

namespace taut::vm {
namespace {

bool wrong_kind(Error& error, std::uint32_t number, const Register& reg, const char* expected) {
    return error.set(Fault::program, "register " + std::to_string(number) + " holds " + kind_name(reg.kind), expected);
}

// The element at an offset.
std::int64_t integer_at(const Tensor& tensor, std::int64_t offset) {
    const std::uint8_t* at = tensor.buffer.host + offset * traits(tensor.dtype).bytes;
    switch (tensor.dtype) {
        case DType::int64: return *reinterpret_cast<const std::int64_t*>(at);
        case DType::int32: return *reinterpret_cast<const std::int32_t*>(at);
        case DType::int16: return *reinterpret_cast<const std::int16_t*>(at);
        case DType::int8: return *reinterpret_cast<const std::int8_t*>(at);
        case DType::boolean: return *at != 0;
        default: return *at;
    }
}

bool has_integers(const Tensor& tensor) { return tensor.dtype >= DType::int64 && tensor.device == 0; }

}  // namespace

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
    std::uint32_t function = 0;
    std::uint32_t pc = 0;
    bool works = false;

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
            if (entry != nullptr) {
                entry->nanoseconds += time - started;
                if (works) profile->spans.push_back({0, function, pc, started, time});
            }
            function = static_cast<std::uint32_t>(frame->function - program_.functions.data());
            pc = instruction->number;
            works = instruction->opcode == Opcode::kernel || instruction->opcode == Opcode::copy ||
                    instruction->opcode == Opcode::fallback;
            entry = &profile->entries[function][pc];
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
                    return program_error("the view leaves " + base.tensor.text(), "a view inside the tensor");
                }
                target.kind = Kind::tensor;
                target.read_only = base.read_only;
                if (a == b) {
                    registers[a].share(made);
                    made.clear();
                }
                break;
            }
            case Opcode::kernel:
                if (!run_kernel(now_at, registers, error)) return fail();
                break;
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
                    return program_error("dimension " + std::to_string(now_at.rank) + " of " + reg.tensor.text() +
                                         " does not exist");
                }
                slots[a] = reg.tensor.size(now_at.rank);
                break;
            }
            case Opcode::item: {
                const Register& reg = registers[b];
                if (reg.kind != Kind::tensor) return kind_error(b, "a tensor");
                if (!has_integers(reg.tensor) || reg.tensor.elements() != 1) {
                    return program_error("register " + std::to_string(b) + " holds " + reg.tensor.text(),
                                         "one integer or bool on device 0");
                }
                slots[a] = integer_at(reg.tensor, 0);
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
            case Opcode::copy:
                if (!run_copy(now_at, registers, error)) return fail();
                break;
            case Opcode::levels:
                if (!run_levels(now_at, registers, slots, host, error)) return fail();
                break;
            case Opcode::stack:
                if (!run_stack(now_at, registers, slots, error)) return fail();
                break;
            case Opcode::element: {
                const Register& reg = registers[b];
                if (reg.kind != Kind::tensor) return kind_error(b, "a tensor");
                if (!has_integers(reg.tensor) || reg.tensor.rank() != 1) {
                    return program_error("register " + std::to_string(b) + " holds " + reg.tensor.text(),
                                         "one dimension of integers or bools on device 0");
                }
                const std::int64_t index = slots[now_at.c];
                if (index < 0 || index >= reg.tensor.size(0)) {
                    return program_error("element " + std::to_string(index) + " does not exist", reg.tensor.text());
                }
                slots[a] = integer_at(reg.tensor, index * reg.tensor.stride(0));
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
                if (registers[a].read_only && instruction[-1].opcode != Opcode::constant) {
                    return program_error("register " + std::to_string(a) + " may not be written");
                }
                registers[a].tensor.device = now_at.rank;
                break;
            case Opcode::fill: {
                Register& reg = registers[a];
                if (reg.kind != Kind::tensor) return kind_error(a, "a tensor");
                if (reg.read_only) return program_error("register " + std::to_string(a) + " may not be written");
                fill_elements(reg.tensor, static_cast<double>(slots[b]), slots[b]);
                break;
            }
            case Opcode::parallel:
                if (limits_.workers > 1 && now_at.region->workers > 1) {
                    const Outcome outcome = run_region(*now_at.region, error, profile);
                    if (outcome == Outcome::failed) return false;
                    if (outcome == Outcome::done) {
                        instruction += now_at.region->size;
                    }
                }
                break;
        }
        ++instruction;
    }
}

template bool Machine::execute<false>(Host& host, Error& error, Profile* profile);
template bool Machine::execute<true>(Host& host, Error& error, Profile* profile);

}  // namespace taut::vm
