// What of a program a call with the sizes of the last need not do again.
#include <algorithm>

#include "vm/program.h"

namespace taut::vm {
namespace {

enum class Heap : std::uint8_t { registers, slots };

// Calls `visit(heap, number, written)` for what an instruction reads and writes in its frame, in order. What it does to
// the elements of tensors does not count.
template <class Visit>
void for_each_access(const Instruction& at, const Visit& visit) {
    const auto reads = [&](std::uint32_t reg) { visit(Heap::registers, reg, false); };
    const auto writes = [&](std::uint32_t reg) { visit(Heap::registers, reg, true); };
    const auto reads_slot = [&](std::uint32_t slot) { visit(Heap::slots, slot, false); };
    const auto writes_slot = [&](std::uint32_t slot) { visit(Heap::slots, slot, true); };
    const auto reads_list = [&] { std::for_each(at.list, at.list + at.n, reads); };
    const auto writes_rest = [&] { std::for_each(at.list + at.n, at.list + at.n + at.m, writes); };
    const auto reads_sizes = [&](std::uint32_t lists) { std::for_each(at.list, at.list + lists * at.rank, reads_slot); };
    switch (at.opcode) {
        case Opcode::shape:
            for (const ShapeStep* step = at.steps; step->opcode != ShapeOpcode::end; ++step) {
                if (step->opcode == ShapeOpcode::load) reads_slot(static_cast<std::uint32_t>(step->value));
                if (step->opcode == ShapeOpcode::store) writes_slot(static_cast<std::uint32_t>(step->value));
            }
            break;
        case Opcode::arena:
        case Opcode::check:
        case Opcode::branch: reads_slot(at.a); break;
        case Opcode::alloc:
            reads_slot(at.b);
            reads_sizes(1);
            writes(at.a);
            break;
        case Opcode::new_:
            reads_sizes(1);
            writes(at.a);
            break;
        case Opcode::constant:
        case Opcode::clear:
        case Opcode::place: writes(at.a); break;
        case Opcode::view:
            reads(at.b);
            reads_slot(at.c);
            reads_sizes(2);
            writes(at.a);
            break;
        case Opcode::kernel:
        case Opcode::return_: reads_list(); break;
        case Opcode::fallback:
        case Opcode::call:
            reads_list();
            writes_rest();
            break;
        case Opcode::bind:
        case Opcode::item:
        case Opcode::load:
        case Opcode::tag:
        case Opcode::length:
            reads(at.b);
            writes_slot(at.a);
            break;
        case Opcode::store:
            reads_slot(at.b);
            writes(at.a);
            break;
        case Opcode::move:
        case Opcode::transfer:
            reads(at.b);
            writes(at.a);
            break;
        case Opcode::make:
            reads_list();
            writes(at.a);
            break;
        case Opcode::field:
            reads(at.b);
            reads_slot(at.c);
            writes(at.a);
            break;
        case Opcode::append:
            reads(at.b);
            reads(at.c);
            writes(at.a);
            break;
        case Opcode::copy:
            reads(at.a);
            reads(at.b);
            break;
        case Opcode::fill:
            reads(at.a);
            reads_slot(at.b);
            break;
        case Opcode::levels:
            reads(at.n);
            writes(at.a);
            writes(at.b);
            writes_slot(at.c);
            break;
        case Opcode::element:
            reads(at.b);
            reads_slot(at.c);
            writes_slot(at.a);
            break;
        case Opcode::stack:
            reads(at.a);
            reads(at.b);
            reads_slot(at.c);
            break;
        case Opcode::jump:
        case Opcode::parallel: break;
    }
}

// Registers or slots: how often each is written in the function, whether it was so far, and whether its value follows
// from sizes of arguments alone.
struct Cells {
    explicit Cells(std::uint32_t count) : writes(count), written(count), settled(count) {}
    std::vector<std::uint32_t> writes;
    std::vector<bool> written;
    std::vector<bool> settled;

    std::vector<std::uint32_t> fleeting() const {
        std::vector<std::uint32_t> found;
        for (std::uint32_t i = 0; i < writes.size(); ++i) {
            if (writes[i] > 0 && !settled[i]) found.push_back(i);
        }
        return found;
    }
};

class Finder {
   public:
    explicit Finder(const Program& program)
        : program_(program), function_(program.functions[0]), registers_(function_.registers), slots_(function_.slots) {}

    Repeat run() {
        const std::vector<Instruction>& code = function_.instructions;
        for (std::uint32_t i = 0; i < function_.parameters; ++i) {
            registers_.writes[i] = 1;
            registers_.written[i] = true;
        }
        for (const Instruction& at : code) {
            for_each_access(at, [&](Heap heap, std::uint32_t number, bool written) {
                if (written) ++cells(heap).writes[number];
            });
            arenas_ += at.opcode == Opcode::arena;
        }
        const std::size_t straight = straight_line();
        for (std::size_t pc = 0; pc < straight; ++pc) {
            const Instruction& at = code[pc];
            const bool settled = settles(at);
            bool early = false;
            for_each_access(at, [&](Heap heap, std::uint32_t number, bool written) {
                Cells& own = cells(heap);
                if (written) {
                    own.written[number] = true;
                    own.settled[number] = settled;
                } else {
                    early |= own.writes[number] > 0 && !own.written[number];
                }
            });
            // It would find what the last call left there.
            if (early) return {};
            if (settled) {
                if (at.opcode == Opcode::arena) arena_ = true;
                if ((at.opcode == Opcode::bind || at.opcode == Opcode::load) && at.b < function_.parameters) {
                    made_.sizes.push_back({at.a, at.b, at.opcode == Opcode::bind ? at.rank : Repeat::Size::whole});
                }
            } else {
                made_.instructions.push_back(at);
            }
        }
        if (made_.instructions.size() == straight) return {};
        // A larger arena leaves the one before in place, so that tensors would lie otherwise than in a first call.
        if (arenas_ > 0 && !arena_) return {};
        made_.instructions.insert(made_.instructions.end(), code.begin() + static_cast<std::ptrdiff_t>(straight), code.end());
        made_.registers = registers_.fleeting();
        made_.slots = slots_.fleeting();
        return std::move(made_);
    }

   private:
    Cells& cells(Heap heap) { return heap == Heap::registers ? registers_ : slots_; }

    // How many instructions at the start run once, one after the other.
    std::size_t straight_line() const {
        std::size_t end = function_.instructions.size();
        for (std::size_t pc = 0; pc < end; ++pc) {
            const Instruction& at = function_.instructions[pc];
            if (at.opcode == Opcode::return_) end = pc;
            if (at.opcode == Opcode::jump) end = std::min<std::size_t>(pc, at.a);
            if (at.opcode == Opcode::branch) end = std::min<std::size_t>(pc, at.b);
        }
        // Jumps from further on may lead back.
        for (const Instruction& at : function_.instructions) {
            if (at.opcode == Opcode::jump) end = std::min<std::size_t>(end, at.a);
            if (at.opcode == Opcode::branch) end = std::min<std::size_t>(end, at.b);
        }
        return end;
    }

    bool settled(std::uint32_t slot) const { return slots_.writes[slot] == 0 || slots_.settled[slot]; }
    bool settled(const Instruction& at, std::uint32_t lists) const {
        return std::all_of(at.list, at.list + lists * at.rank, [&](std::uint32_t slot) { return settled(slot); });
    }
    // Whether the argument is still in its register.
    bool argument(std::uint32_t reg) const { return reg < function_.parameters && registers_.writes[reg] == 1; }

    bool settles(const Instruction& at) {
        const auto once = [&](const Cells& cells) { return cells.writes[at.a] == 1; };
        switch (at.opcode) {
            case Opcode::shape: return settles(at.steps);
            case Opcode::arena: return arenas_ == 1 && settled(at.a);
            case Opcode::alloc: return once(registers_) && arena_ && settled(at.b) && settled(at, 1);
            // A kernel may change the sizes of a tensor without memory.
            case Opcode::constant: return once(registers_) && program_.constants[at.b].buffer.host != nullptr;
            case Opcode::view:
                return once(registers_) && registers_.settled[at.b] && settled(at.c) && settled(at, 2);
            case Opcode::bind: return once(slots_) && (argument(at.b) || registers_.settled[at.b]);
            case Opcode::load: return once(slots_) && argument(at.b);
            case Opcode::store: return once(registers_) && settled(at.b);
            case Opcode::check: return settled(at.a);
            default: return false;
        }
    }
    // Slots that it stores count as settled from there on, until it is known of the whole instruction.
    bool settles(const ShapeStep* step) {
        for (; step->opcode != ShapeOpcode::end; ++step) {
            const auto slot = static_cast<std::uint32_t>(step->value);
            if (step->opcode == ShapeOpcode::load && !settled(slot)) return false;
            if (step->opcode == ShapeOpcode::store) {
                if (slots_.writes[slot] != 1) return false;
                slots_.settled[slot] = true;
            }
        }
        return true;
    }

    const Program& program_;
    const Function& function_;
    Cells registers_;
    Cells slots_;
    int arenas_ = 0;
    bool arena_ = false;
    Repeat made_;
};

}  // namespace

Repeat find_repeat(const Program& program) { return Finder(program).run(); }

}  // namespace taut::vm
