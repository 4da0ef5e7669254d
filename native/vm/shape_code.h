// The stack machine that computes sizes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace taut::vm {

// As taut.runtime.ShapeCode.
enum class ShapeOpcode : std::uint8_t {
    push, load, store, add, sub, mul, floordiv, ceildiv, mod, min, max, eq, ne, lt, le, gt, ge, and_, or_, not_, select,
    end,
};
inline constexpr int shape_opcode_count = 21;
inline constexpr int shape_stack = 64;

struct ShapeStep {
    ShapeOpcode opcode;
    std::int64_t value = 0;  // or a slot
};

// Checks the words and appends `end`; false with the problem.
bool decode_shape(std::span<const std::int64_t> words, std::int64_t slots, std::vector<ShapeStep>& steps,
                  std::string& problem);

// False when a result overflows or something is divided by zero.
bool run_shape(const ShapeStep* steps, std::int64_t* slots);

}  // namespace taut::vm
