// The calling convention of kernels: `int kernel(void** arguments)`, each argument a buffer, 0 for success. The layout is
// that of halide_buffer_t (HalideRuntime.h of Halide 21), so that generated kernels take registers as they are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace taut::vm {

inline constexpr int max_rank = 8;

struct Dimension {
    std::int32_t min;
    std::int32_t extent;
    std::int32_t stride;  // in elements
    std::uint32_t flags;
};

struct ElementType {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};

// Dimension 0 is the innermost.
struct Buffer {
    std::uint64_t device;
    const void* device_interface;
    std::uint8_t* host;
    std::uint64_t flags;
    ElementType type;
    std::int32_t dimensions;
    Dimension* dim;
    void* padding;
};

static_assert(sizeof(Dimension) == 16 && sizeof(ElementType) == 4 && sizeof(Buffer) == 56);
static_assert(offsetof(Buffer, host) == 16 && offsetof(Buffer, type) == 32 && offsetof(Buffer, dim) == 40);

using KernelFunction = int (*)(void** arguments);

// In the order of taut.runtime.DTYPES.
enum class DType : std::uint8_t { float32, float64, bfloat16, float16, int64, int32, int16, int8, uint8, boolean };
inline constexpr int dtype_count = 10;

struct DTypeTraits {
    const char* name;
    std::uint8_t bytes;
    ElementType type;
};

inline constexpr DTypeTraits dtype_traits[dtype_count] = {
    {"float32", 4, {2, 32, 1}}, {"float64", 8, {2, 64, 1}}, {"bfloat16", 2, {4, 16, 1}}, {"float16", 2, {2, 16, 1}},
    {"int64", 8, {0, 64, 1}},   {"int32", 4, {0, 32, 1}},   {"int16", 2, {0, 16, 1}},    {"int8", 1, {0, 8, 1}},
    {"uint8", 1, {1, 8, 1}},    {"bool", 1, {1, 1, 1}},
};

inline constexpr const DTypeTraits& traits(DType dtype) { return dtype_traits[static_cast<int>(dtype)]; }

}  // namespace taut::vm
