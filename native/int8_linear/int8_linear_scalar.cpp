// Portable implementation, and the reference for the others.
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
    static Float fma(Float a, Float b, Float c) { return __builtin_fmaf(a, b, c); }
    static Float min(Float a, Float b) { return a < b ? a : b; }
    static Float max(Float a, Float b) { return a > b ? a : b; }
    static void store(float* p, Float value) { *p = value; }
    static void store_part(float* p, int, Float value) { *p = value; }
    static void store_bfloat16(std::uint16_t* p, int, Float value) {
        const auto bits = __builtin_bit_cast(std::uint32_t, value);
        const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
        *p = static_cast<std::uint16_t>(value != value ? 0x7fc0u : rounded);
    }
};

std::uint32_t load_bits(const void* x, Element element, std::int64_t index) {
    if (element == Element::float32) {
        std::uint32_t bits;
        std::memcpy(&bits, static_cast<const char*>(x) + 4 * index, 4);
        return bits;
    }
    std::uint16_t half;
    std::memcpy(&half, static_cast<const char*>(x) + 2 * index, 2);
    return static_cast<std::uint32_t>(half) << 16;
}

float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    std::uint32_t magnitude = 0;
    for (std::int64_t k = 0; k < depth; ++k) {
        const std::uint32_t bits = load_bits(x, element, k) & 0x7fffffffu;
        magnitude = bits > magnitude ? bits : magnitude;
    }
    const RowScale scale = row_scale<Vector>(magnitude);
    if (scale.inverse == 0.0f) {
        std::memset(out, 0, groups * group_depth);
        return scale.scale;
    }
    for (std::int64_t k = 0; k < depth; ++k) {
        const float value = __builtin_bit_cast(float, load_bits(x, element, k)) * scale.inverse;
        out[k] = static_cast<std::uint8_t>(static_cast<std::int8_t>(nearbyintf(value)));
    }
    for (std::int64_t k = depth; k < groups * group_depth; ++k) out[k] = 0;
    return scale.scale;
}

void tile(const Int8LinearTile& tile) {
    const auto* x = reinterpret_cast<const std::int8_t*>(tile.x);
    std::int32_t sums[block_channels] = {};
    for (std::int64_t group = 0; group < tile.groups; ++group) {
        const std::int8_t* weights = tile.packed + group * group_bytes;
        for (int channel = 0; channel < block_channels; ++channel) {
            for (int k = 0; k < group_depth; ++k) {
                sums[channel] += x[group * group_depth + k] * weights[channel * group_depth + k];
            }
        }
    }
    finish_row<Vector>(tile, 0, sums);
}

}  // namespace

constinit const Int8LinearKernels int8_linear_scalar{1, 1, 4, quantise, tile};

}  // namespace taut
