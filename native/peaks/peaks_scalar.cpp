// Portable: vectors of 16 bytes as the compiler provides them (SSE2 or NEON).
#include <cstring>

#include "peaks/loops.h"

namespace taut {
namespace {

struct Vector {
    typedef float Float __attribute__((vector_size(16)));
    typedef std::uint16_t Integer __attribute__((vector_size(16)));
    static constexpr int floats = 4;
    static constexpr int dot_products = 8;
    static Float set(float value) { return Float{value, value, value, value}; }
    static Integer integers(int value) { return Integer{} + static_cast<std::uint16_t>(value); }
    // Two instructions without a fused one; still two operations.
    static Float multiply_add(Float a, Float b, Float c) { return a * b + c; }
    static Integer dot(Integer sum, Integer a, Integer b) { return sum * a + b; }
    static Integer exclusive_or(Integer a, const std::uint8_t* p) {
        Integer b;
        std::memcpy(&b, p, sizeof b);
        return a ^ b;
    }
};

}  // namespace

constinit const PeakLoops peak_loops_scalar = peak_loops<Vector>();

}  // namespace taut
