#include "vm/shape_code.h"

namespace taut::vm {
namespace {

int operands(ShapeOpcode opcode) {
    switch (opcode) {
        case ShapeOpcode::push:
        case ShapeOpcode::load: return 0;
        case ShapeOpcode::store:
        case ShapeOpcode::not_: return 1;
        case ShapeOpcode::select: return 3;
        default: return 2;
    }
}

bool floor_division(std::int64_t a, std::int64_t b, std::int64_t& quotient, std::int64_t& remainder) {
    if (b == 0 || (a == INT64_MIN && b == -1)) return false;
    quotient = a / b;
    remainder = a % b;
    if (remainder != 0 && (remainder < 0) != (b < 0)) {
        --quotient;
        remainder += b;
    }
    return true;
}

}  // namespace

bool decode_shape(std::span<const std::int64_t> words, std::int64_t slots, std::vector<ShapeStep>& steps,
                  std::string& problem) {
    int depth = 0;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::int64_t word = words[i];
        if (word < 0 || word >= shape_opcode_count) {
            problem = "shape code has the unknown operation " + std::to_string(word);
            return false;
        }
        const auto opcode = static_cast<ShapeOpcode>(word);
        ShapeStep step{opcode};
        if (opcode <= ShapeOpcode::store) {
            if (++i == words.size()) {
                problem = "shape code is cut short";
                return false;
            }
            step.value = words[i];
            if (opcode != ShapeOpcode::push && (step.value < 0 || step.value >= slots)) {
                problem = "shape code uses slot " + std::to_string(step.value) + ", which does not exist";
                return false;
            }
        }
        depth -= operands(opcode);
        if (depth < 0) {
            problem = "shape code takes from an empty stack";
            return false;
        }
        if (opcode != ShapeOpcode::store && ++depth > shape_stack) {
            problem = "shape code needs a stack of more than " + std::to_string(shape_stack) + " values";
            return false;
        }
        steps.push_back(step);
    }
    if (depth != 0) {
        problem = "shape code leaves values on the stack";
        return false;
    }
    steps.push_back({ShapeOpcode::end});
    return true;
}

bool run_shape(const ShapeStep* step, std::int64_t* slots) {
    std::int64_t stack[shape_stack];
    std::int64_t* top = stack;  // one past the last value
    std::int64_t other = 0;
    for (;; ++step) {
        switch (step->opcode) {
            case ShapeOpcode::push: *top++ = step->value; break;
            case ShapeOpcode::load: *top++ = slots[step->value]; break;
            case ShapeOpcode::store: slots[step->value] = *--top; break;
            case ShapeOpcode::add:
                --top;
                if (__builtin_add_overflow(top[-1], *top, &top[-1])) return false;
                break;
            case ShapeOpcode::sub:
                --top;
                if (__builtin_sub_overflow(top[-1], *top, &top[-1])) return false;
                break;
            case ShapeOpcode::mul:
                --top;
                if (__builtin_mul_overflow(top[-1], *top, &top[-1])) return false;
                break;
            case ShapeOpcode::floordiv:
                --top;
                if (!floor_division(top[-1], *top, top[-1], other)) return false;
                break;
            case ShapeOpcode::ceildiv:
                --top;
                if (!floor_division(top[-1], *top, top[-1], other)) return false;
                if (other != 0) ++top[-1];
                break;
            case ShapeOpcode::mod:
                --top;
                // A remainder by -1 is 0 for every number.
                if (*top == -1) {
                    top[-1] = 0;
                } else if (!floor_division(top[-1], *top, other, top[-1])) {
                    return false;
                }
                break;
            case ShapeOpcode::min:
                --top;
                if (*top < top[-1]) top[-1] = *top;
                break;
            case ShapeOpcode::max:
                --top;
                if (*top > top[-1]) top[-1] = *top;
                break;
            case ShapeOpcode::eq: --top; top[-1] = top[-1] == *top; break;
            case ShapeOpcode::ne: --top; top[-1] = top[-1] != *top; break;
            case ShapeOpcode::lt: --top; top[-1] = top[-1] < *top; break;
            case ShapeOpcode::le: --top; top[-1] = top[-1] <= *top; break;
            case ShapeOpcode::gt: --top; top[-1] = top[-1] > *top; break;
            case ShapeOpcode::ge: --top; top[-1] = top[-1] >= *top; break;
            case ShapeOpcode::and_: --top; top[-1] = top[-1] != 0 && *top != 0; break;
            case ShapeOpcode::or_: --top; top[-1] = top[-1] != 0 || *top != 0; break;
            case ShapeOpcode::not_: top[-1] = top[-1] == 0; break;
            case ShapeOpcode::select:
                top -= 2;
                top[-1] = top[-1] != 0 ? top[0] : top[1];
                break;
            case ShapeOpcode::end: return true;
        }
    }
}

}  // namespace taut::vm
