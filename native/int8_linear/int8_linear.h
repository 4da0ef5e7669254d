// y = activation(x @ W^T + bias) with W in int8 per output channel and x quantised to int8 per row on the fly.
//
// Packed weights: blocks of 16 output channels; each block holds ceil(depth / 4) groups of 64 bytes (channel-major, four
// consecutive depth values per channel) followed by two groups of 16 int32: the sums of each channel's values, and the
// depth, repeated. Missing channels and depth values are zero. The layout is the same for every instruction set.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace taut {

enum class Activation : int { none = 0, relu = 1, gelu = 2 };
enum class Element : int { float32 = 0, bfloat16 = 1 };

inline constexpr std::int64_t block_channels = 16;
inline constexpr std::int64_t group_depth = 4;
inline constexpr std::int64_t group_bytes = block_channels * group_depth;
inline constexpr std::int64_t trailer_groups = 2;
// |sum| <= depth * 127 * 128 must stay below 2^31.
inline constexpr std::int64_t max_depth = std::int64_t{1} << 17;

struct Int8LinearCall {
    const void* x;  // (rows, depth), contiguous
    void* y;        // (rows, channels), contiguous, same element type as x
    std::int64_t rows;
    std::int64_t depth;
    std::int64_t channels;
    const std::int8_t* packed;
    std::int64_t groups;        // of four depth values in a quantised row and in a block; any past the depth are zero
    std::int64_t block_stride;  // bytes between blocks of `packed`
    const float* scales;        // (channels,)
    const float* bias;          // (channels,) or null
    Activation activation;
    Element element;
};

// A micro-tile: a few rows times a few blocks of channels.
struct Int8LinearTile {
    const std::uint8_t* x;  // first quantised row
    std::int64_t x_stride;  // bytes between quantised rows
    const float* row_scales;
    int rows;
    const std::int8_t* packed;  // first block
    std::int64_t block_stride;  // bytes between blocks
    int blocks;
    int channels;  // valid channels of those blocks
    std::int64_t groups;
    const float* scales;  // of the first channel
    const float* bias;    // of the first channel, or null
    std::uint8_t* y;      // first row, first channel
    std::int64_t y_stride;  // bytes between output rows
    Activation activation;
    Element element;
};

// What one instruction set implements.
struct Int8LinearKernels {
    int tile_rows;
    int tile_blocks;
    int group_size;  // bytes of one quantised group of four values
    // Quantises one row to `groups` groups (the tail counts as zero) and returns its scale.
    float (*quantise)(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out);
    void (*tile)(const Int8LinearTile& tile);
    // Where `packed` holds another form of the weights: writes one block of it in the form described above. Null where
    // `tile` reads `packed` itself.
    void (*expand)(const std::int8_t* block, std::int64_t groups, std::int8_t* out) = nullptr;
};

extern const Int8LinearKernels int8_linear_scalar;
extern const Int8LinearKernels int8_linear_avx2;
extern const Int8LinearKernels int8_linear_avx512_vnni;

const Int8LinearKernels& int8_linear_kernels(Isa isa);

// Computes the call with these kernels on at most `threads` threads.
void run_linear(const Int8LinearCall& call, const Int8LinearKernels& kernels, int threads);

// The same with int8 weights, packed as described above, and the active instruction set; sets `groups` and
// `block_stride` itself.
// Source of the scheme: Jacob et al., "Quantization and Training of Neural Networks", section 2 (symmetric case).
void int8_linear(Int8LinearCall call, int threads);

}  // namespace taut
