#include <algorithm>

#include "vm/program.h"

namespace taut::vm {
namespace {

constexpr std::int64_t maximal_functions = 1 << 16;
constexpr std::int64_t maximal_registers = 1 << 16;
constexpr std::int64_t maximal_slots = 1 << 20;
constexpr std::int64_t maximal_list = 1 << 16;
constexpr std::size_t maximal_instructions = 1 << 22;
constexpr std::size_t maximal_shape_steps = 1 << 24;
constexpr std::size_t maximal_operands = 64;
constexpr std::int64_t maximal_workers = 256;
constexpr std::size_t maximal_task_edges = 1 << 22;  // of all regions

constexpr const char* names[opcode_count] = {
    "SHAPE", "ARENA", "ALLOC", "NEW",  "CONSTANT", "VIEW",   "KERNEL", "FALLBACK", "BIND", "ITEM",
    "LOAD",  "STORE", "CHECK", "JUMP", "BRANCH",   "CALL",   "RETURN", "MOVE",     "CLEAR", "MAKE",
    "FIELD", "TAG",   "LENGTH", "APPEND", "COPY",  "TRANSFER", "PLACE", "FILL",
    "PARALLEL", "LEVELS", "ELEMENT", "STACK",
};

// Reads the words of one instruction.
class Reader {
   public:
    Reader(Program& program, const std::vector<RawFunction>& all, std::size_t function, Function& out,
           std::size_t& shape_steps)
        : program_(program), all_(all), raw_(all[function]), out_(out), shape_steps_(shape_steps) {}

    Instruction read(std::size_t pc) {
        pc_ = pc;
        words_ = &raw_.instructions[pc];
        next_ = 0;
        opcode_ = -1;
        opcode_ = next(opcode_count, "operation");
        Instruction made{static_cast<Opcode>(opcode_)};
        made.number = static_cast<std::uint32_t>(pc);
        switch (made.opcode) {
            case Opcode::shape: read_shape(made); break;
            case Opcode::arena: made.a = slot(); break;
            case Opcode::alloc:
                made.a = reg();
                made.dtype = dtype();
                made.b = slot();
                read_sizes(made, 1);
                break;
            case Opcode::new_:
                made.a = reg();
                made.dtype = dtype();
                read_sizes(made, 1);
                break;
            case Opcode::constant:
                made.a = reg();
                made.b = next(program_.constants.size(), "constant");
                break;
            case Opcode::view:
                made.a = reg();
                made.b = reg();
                made.c = slot();
                read_sizes(made, 2);
                break;
            case Opcode::kernel: read_kernel(made); break;
            case Opcode::fallback: {
                made.a = next(program_.fallbacks.size(), "fallback");
                const Fallback& fallback = program_.fallbacks[made.a];
                read_arguments(made, fallback.inputs, fallback.results);
                break;
            }
            case Opcode::bind:
                made.a = slot();
                made.b = reg();
                made.rank = static_cast<std::uint8_t>(next(max_rank, "dimension"));
                break;
            case Opcode::item:
            case Opcode::load:
            case Opcode::tag:
            case Opcode::length:
                made.a = slot();
                made.b = reg();
                break;
            case Opcode::store:
            case Opcode::fill:
                made.a = reg();
                made.b = slot();
                break;
            case Opcode::check:
                made.a = slot();
                made.b = next(program_.messages.size(), "message");
                break;
            case Opcode::jump: made.a = target(); break;
            case Opcode::branch:
                made.a = slot();
                made.b = target();
                break;
            case Opcode::call: {
                made.a = next(all_.size(), "function");
                read_arguments(made, all_[made.a].parameters, all_[made.a].results);
                break;
            }
            case Opcode::return_: read_arguments(made, raw_.results, -1); break;
            case Opcode::move:
            case Opcode::copy:
                made.a = reg();
                made.b = reg();
                break;
            case Opcode::clear: made.a = reg(); break;
            case Opcode::make:
                made.a = reg();
                made.value = word();
                read_arguments(made, -1, -1);
                break;
            case Opcode::field:
                made.a = reg();
                made.b = reg();
                made.c = slot();
                break;
            case Opcode::append:
                made.a = reg();
                made.b = reg();
                made.c = reg();
                break;
            case Opcode::transfer:
                made.a = reg();
                made.b = reg();
                made.rank = static_cast<std::uint8_t>(next(device_count, "device"));
                break;
            case Opcode::place:
                made.a = reg();
                made.rank = static_cast<std::uint8_t>(next(device_count, "device"));
                check_placed(pc, made.a);
                break;
            case Opcode::parallel: read_region(made); break;
            case Opcode::levels:
                made.a = reg();
                made.b = reg();
                made.c = slot();
                made.n = reg();
                read_cases(made);
                break;
            case Opcode::element:
                made.a = slot();
                made.b = reg();
                made.c = slot();
                break;
            case Opcode::stack:
                made.a = reg();
                made.b = reg();
                made.c = slot();
                made.n = next(maximal_list, "field");
                break;
        }
        if (next_ != words_->size()) refuse("has " + std::to_string(words_->size()) + " words", std::to_string(next_));
        return made;
    }

    [[noreturn]] void refuse(std::string problem, std::string expected = {}) const {
        std::string where = "function " + raw_.name + ", instruction " + std::to_string(pc_);
        if (opcode_ >= 0) where += std::string(" (") + names[opcode_] + ")";
        throw LoadError({Fault::program, where + ": " + problem, std::move(expected), {}});
    }

   private:
    std::int64_t word() {
        if (next_ >= words_->size()) refuse("is cut short");
        return (*words_)[next_++];
    }
    std::uint32_t next(std::int64_t count, const char* what) {
        const std::int64_t value = word();
        if (value < 0 || value >= count) {
            refuse(std::string(what) + " " + std::to_string(value) + " does not exist",
                   count == 0 ? std::string("none") : "0 to " + std::to_string(count - 1));
        }
        return static_cast<std::uint32_t>(value);
    }
    std::uint32_t reg() { return next(raw_.registers, "register"); }
    std::uint32_t slot() { return next(raw_.slots, "slot"); }
    std::uint32_t target() { return next(static_cast<std::int64_t>(raw_.instructions.size()), "instruction"); }
    DType dtype() { return static_cast<DType>(next(dtype_count, "dtype")); }

    void append_registers(std::vector<std::uint32_t>& list, std::uint32_t count) {
        for (std::uint32_t i = 0; i < count; ++i) list.push_back(reg());
    }
    std::uint32_t count(std::int64_t expected) {
        const std::int64_t given = word();
        if (given < 0 || given > maximal_list || (expected >= 0 && given != expected)) {
            refuse("lists " + std::to_string(given) + " registers", expected >= 0 ? std::to_string(expected) : "fewer");
        }
        return static_cast<std::uint32_t>(given);
    }
    // One list where `results` is negative, else two; any length where `arguments` is negative.
    void read_arguments(Instruction& made, std::int64_t arguments, std::int64_t results) {
        std::vector<std::uint32_t> list;
        made.n = count(arguments);
        append_registers(list, made.n);
        if (results >= 0) {
            made.m = count(results);
            append_registers(list, made.m);
        }
        keep(made, std::move(list));
    }
    void read_sizes(Instruction& made, int lists) {
        made.rank = static_cast<std::uint8_t>(next(max_rank + 1, "rank"));
        std::vector<std::uint32_t> list;
        for (int i = 0; i < lists * made.rank; ++i) list.push_back(slot());
        keep(made, std::move(list));
    }
    void keep(Instruction& made, std::vector<std::uint32_t> list) {
        out_.lists.push_back(std::move(list));
        made.list = out_.lists.back().data();
    }
    void read_kernel(Instruction& made) {
        made.a = next(program_.kernels.size(), "kernel");
        made.kernel = &program_.kernels[made.a];
        read_arguments(made, static_cast<std::int64_t>(made.kernel->operands.size()), -1);
    }
    void read_shape(Instruction& made) {
        const auto size = static_cast<std::int64_t>(raw_.shape_code.size());
        const std::int64_t start = next(size + 1, "word");
        const std::int64_t end = next(size + 1, "word");
        if (end < start) refuse("ends before it starts");
        std::vector<ShapeStep> steps;
        std::string problem;
        const std::span<const std::int64_t> words(raw_.shape_code.data() + start, static_cast<std::size_t>(end - start));
        if ((shape_steps_ += words.size()) > maximal_shape_steps) refuse("is one of too many with long shape code");
        if (!decode_shape(words, raw_.slots, steps, problem)) refuse(problem);
        out_.shapes.push_back(std::move(steps));
        made.steps = out_.shapes.back().data();
    }
    void read_cases(Instruction& made) {
        std::vector<NodeCase> cases;
        for (std::uint32_t count = next(maximal_list, "case"); count > 0; --count) {
            NodeCase& one = cases.emplace_back(NodeCase{word(), {}});
            for (std::uint32_t children = next(maximal_list, "child"); children > 0; --children) {
                one.children.push_back(next(maximal_list, "field"));
            }
        }
        out_.cases.push_back(std::move(cases));
        made.cases = &out_.cases.back();
    }
    void read_region(Instruction& made) {
        Region& region = out_.regions.emplace_back();
        region.number = program_.regions++;
        const auto all = static_cast<std::int64_t>(raw_.instructions.size());
        const std::uint32_t count = next(all, "task");
        auto at = static_cast<std::uint32_t>(pc_ + 1);
        for (std::uint32_t number = 0; number < count; ++number) {
            const std::uint32_t length = next(all - at + 1, "instruction");
            const std::uint32_t worker = next(maximal_workers, "worker");
            const std::uint32_t before = next(number + 1, "task");
            region.tasks.push_back({at, at + length, worker, {}});
            std::vector<std::uint32_t>& others = region.tasks.back().before;
            for (std::uint32_t i = 0; i < before; ++i) others.push_back(next(number, "task"));
            if ((program_.task_edges += before) > maximal_task_edges) refuse("is one of too many with many tasks");
            region.workers = std::max(region.workers, worker + 1);
            for (const std::uint32_t end = at + length; at < end; ++at) check_member(at);
        }
        region.size = at - static_cast<std::uint32_t>(pc_ + 1);
        made.region = &region;
    }
    // Members only read registers, so that they may run in any order that the tasks allow.
    void check_member(std::size_t pc) const {
        const std::vector<std::int64_t>& words = raw_.instructions[pc];
        const bool fits = !words.empty() && (words[0] == static_cast<std::int64_t>(Opcode::kernel) ||
                                             words[0] == static_cast<std::int64_t>(Opcode::copy));
        if (!fits) refuse("has instruction " + std::to_string(pc) + " in a task", "KERNEL or COPY");
    }
    void check_placed(std::size_t pc, std::uint32_t placed) const {
        const Instruction* before = pc == 0 ? nullptr : &out_.instructions[pc - 1];
        const bool made = before != nullptr && before->a == placed &&
                          (before->opcode == Opcode::alloc || before->opcode == Opcode::new_ ||
                           before->opcode == Opcode::constant);
        if (!made) refuse("does not follow the ALLOC, NEW or CONSTANT of its register");
    }

    Program& program_;
    const std::vector<RawFunction>& all_;
    const RawFunction& raw_;
    Function& out_;
    std::size_t& shape_steps_;
    const std::vector<std::int64_t>* words_ = nullptr;
    std::size_t pc_ = 0;
    std::size_t next_ = 0;
    int opcode_ = -1;
};

[[noreturn]] void refuse(std::string message, std::string expected = {}) {
    throw LoadError({Fault::program, std::move(message), std::move(expected), {}});
}

void check_header(const RawFunction& raw) {
    const auto within = [&](std::int64_t value, std::int64_t limit, const char* what) {
        if (value < 0 || value > limit) {
            refuse("function " + raw.name + " has " + std::to_string(value) + " " + what, "0 to " + std::to_string(limit));
        }
    };
    within(raw.registers, maximal_registers, "registers");
    within(raw.slots, maximal_slots, "slots");
    within(raw.parameters, raw.registers, "parameters");
    within(raw.results, maximal_list, "results");
    if (raw.instructions.empty()) refuse("function " + raw.name + " has no instructions");
    if (!raw.labels.empty() && raw.labels.size() != raw.instructions.size()) {
        refuse("function " + raw.name + " has " + std::to_string(raw.labels.size()) + " labels",
               "none, or one for each instruction");
    }
}

void check_parts(const Program& program, const std::vector<RawFunction>& functions) {
    if (functions.empty() || functions.size() > maximal_functions) refuse("the program has no functions, or too many");
    std::size_t instructions = 0;
    for (const RawFunction& raw : functions) {
        check_header(raw);
        instructions += raw.instructions.size();
    }
    if (instructions > maximal_instructions) refuse("the program has too many instructions");
    if (functions[0].parameters != static_cast<std::int64_t>(program.parameters.size())) {
        refuse("function " + functions[0].name + " takes " + std::to_string(functions[0].parameters) + " arguments",
               "the program's " + std::to_string(program.parameters.size()));
    }
    for (const Kernel& kernel : program.kernels) {
        if (kernel.operands.size() > maximal_operands) {
            refuse("kernel " + kernel.name + " has " + std::to_string(kernel.operands.size()) + " operands",
                   "at most " + std::to_string(maximal_operands));
        }
    }
}

}  // namespace

const char* opcode_name(Opcode opcode) { return names[static_cast<int>(opcode)]; }

void decode_functions(const std::vector<RawFunction>& functions, Program& program) {
    check_parts(program, functions);
    std::size_t shape_steps = 0;
    program.functions.resize(functions.size());
    for (std::size_t i = 0; i < functions.size(); ++i) {
        const RawFunction& raw = functions[i];
        Function& made = program.functions[i];
        made.name = raw.name;
        made.parameters = static_cast<std::uint32_t>(raw.parameters);
        made.results = static_cast<std::uint32_t>(raw.results);
        made.registers = static_cast<std::uint32_t>(raw.registers);
        made.slots = static_cast<std::uint32_t>(raw.slots);
        made.labels = raw.labels;
        Reader reader(program, functions, i, made, shape_steps);
        for (std::size_t pc = 0; pc < raw.instructions.size(); ++pc) made.instructions.push_back(reader.read(pc));
        const Opcode last = made.instructions.back().opcode;
        if (last != Opcode::return_ && last != Opcode::jump) reader.refuse("is the last", "RETURN or JUMP");
    }
    program.repeat = find_repeat(program);
}

}  // namespace taut::vm
