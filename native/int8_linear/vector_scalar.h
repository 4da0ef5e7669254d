// Single values as the vectors for epilogue.h and the quantisation of activations.
// Included once per translation unit, and local to it.
#pragma once

#include <math.h>
#include <cstring>

#include "int8_linear/epilogue.h"

namespace taut {
namespace {

struct Vector {
    using Float = float;
    static constexpr int width = 1;
    static Float set(float value) { return value; }
    static Float load(const float* p) { return *p; }
    static Float load_part(const float* p, int) { return *p; }
    static Float from_int(const std::int32_t* p) { return static_cast<float>(*p); }
    static Float add(Float a, Float b) { return a + b; }
    static Float mul(Float a, Float b) { return a * b; }
    static Float div(Float a, Float b) { return a / b; }
    static Float fma(Float a, Float b, Float c) { return __builtin_fmaf(a, b, c); }
    static Float min(Float a, Float b) { return a < b ? a : b; }
    static Float max(Float a, Float b) { return a > b ? a : b; }
    // 2^n for an integer n, -126 to 127, given 1.5 * 2^23 + n.
    static Float power_of_two(Float shifted) {
        return __builtin_bit_cast(float, (__builtin_bit_cast(std::uint32_t, shifted) + 127u) << 23);
    }
    static void store(float* p, Float value) { *p = value; }
    static void store_part(float* p, int, Float value) { *p = value; }
    static void store_bfloat16(std::uint16_t* p, int, Float value) {
        const auto bits = __builtin_bit_cast(std::uint32_t, value);
        const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
        *p = static_cast<std::uint16_t>(value != value ? 0x7fc0u : rounded);
    }
};

inline std::uint32_t load_bits(const void* x, Element element, std::int64_t index) {
    if (element == Element::float32) {
        std::uint32_t bits;
        std::memcpy(&bits, static_cast<const char*>(x) + 4 * index, 4);
        return bits;
    }
    std::uint16_t half;
    std::memcpy(&half, static_cast<const char*>(x) + 2 * index, 2);
    return static_cast<std::uint32_t>(half) << 16;
}

// The bits of the largest magnitude of `count` consecutive values; NaN counts as the largest.
inline std::uint32_t largest_magnitude(const void* x, Element element, std::int64_t count) {
    std::uint32_t magnitude = 0;
    for (std::int64_t k = 0; k < count; ++k) {
        const std::uint32_t bits = load_bits(x, element, k) & 0x7fffffffu;
        magnitude = bits > magnitude ? bits : magnitude;
    }
    return magnitude;
}

// The scale of `count` consecutive values together.
inline RowScale measure(const void* x, Element element, std::int64_t count) {
    return row_scale<Vector>(largest_magnitude(x, element, count));
}

inline void quantise_values(const void* x, Element element, std::int64_t count, float inverse, std::uint8_t* out) {
    for (std::int64_t k = 0; k < count; ++k) {
        const float value = __builtin_bit_cast(float, load_bits(x, element, k)) * inverse;
        out[k] = static_cast<std::uint8_t>(static_cast<std::int8_t>(nearbyintf(value)));
    }
}

}  // namespace
}  // namespace taut
