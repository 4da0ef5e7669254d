// y = activation(conv2d(x, W) + bias), all channels last: W in int8 per output channel, or in 4 bits with an integer
// scale for every 16 input channels; x quantised to int8 per image on the fly.
//
// Packed weights: blocks of 16 output channels. In each, tap by tap, ceil(channels / 4) groups of 64 bytes (output
// channel-major, four consecutive input channels each), then two groups of 16 int32: the sums of each output channel's
// values, and the number of input channels, repeated. Missing channels are zero.
//
// Vector weights hold in place of the groups, tap by tap, ceil(channels / 16) vectors of 128 bytes: two times 64, whose
// low and high nibbles are two consecutive groups with an offset of 8; then 8 bytes for each vector: the scales of
// output channel i in the low and i + 8 in the high nibble of byte i. Code times scale is at most 105 and so fits the
// groups above exactly: the kernel expands a panel at a time and then is the same.
#pragma once

#include "int8_linear/epilogue.h"
#include "int8_linear/int8_linear.h"

namespace taut {

inline constexpr std::int64_t vector_channels = 16;
inline constexpr std::int64_t vector_code_bytes = vector_channels * block_channels / 2;
inline constexpr std::int64_t vector_scale_bytes = block_channels / 2;
inline constexpr std::int64_t vector_groups = vector_channels / group_depth;

enum class WeightCoding { int8, vectors };

// One of the two image dimensions.
struct Axis {
    std::int64_t size;
    std::int64_t kernel;
    std::int64_t stride;
    std::int64_t padding;
    std::int64_t dilation;

    std::int64_t padded() const { return size + 2 * padding; }
    // How far a kernel reaches.
    std::int64_t extent() const { return (kernel - 1) * dilation + 1; }
    std::int64_t out() const { return padded() < extent() ? 0 : (padded() - extent()) / stride + 1; }
};

struct ConvolutionCall {
    const void* x;  // (images, vertical.size, horizontal.size, channels), contiguous
    void* y;        // (images, vertical.out(), horizontal.out(), out_channels), contiguous, same element type as x
    std::int64_t images;
    Axis vertical;
    Axis horizontal;
    std::int64_t channels;
    std::int64_t out_channels;
    WeightCoding coding;
    const std::int8_t* packed;
    const float* scales;  // (out_channels,)
    const float* bias;    // (out_channels,) or null
    Activation activation;
    Element element;
};

inline constexpr int max_tile_rows = 8;
inline constexpr int max_tile_blocks = 4;

// A micro-tile: a few output pixels times a few blocks of output channels.
struct ConvolutionTile {
    Int8LinearTile linear;                      // what finish_tile reads, and the weights; not x
    const std::uint8_t* pixels[max_tile_rows];  // quantised input under the first tap, for each row
    float row_scales[max_tile_rows];
    const std::int64_t* runs;  // bytes from there to each run of taps that lie side by side
    std::int64_t run_count;
    std::int64_t run_bytes;
};

// One block of vector weights.
struct VectorBlock {
    const std::int8_t* packed;
    std::int64_t taps;
    std::int64_t vectors;  // of each tap
    std::int64_t groups;   // of each tap
    std::int8_t* out;      // taps * groups groups; up to 3 more are overwritten
};

// What one instruction set implements.
struct ConvolutionKernels {
    int tile_rows[max_tile_blocks + 1];  // by the number of blocks; 0 where tiles have fewer blocks
    int value_bytes;                     // of a quantised value
    std::uint8_t zero;                   // each byte of a quantised zero
    RowScale (*measure)(const void* x, Element element, std::int64_t count);
    // May write up to 16 bytes past the end, with zeros in its sense.
    void (*quantise)(const void* x, Element element, std::int64_t count, float inverse, std::uint8_t* out);
    void (*expand)(const VectorBlock& block);
    void (*tile)(const ConvolutionTile& tile);
};

extern const ConvolutionKernels convolution_scalar;
extern const ConvolutionKernels convolution_avx2;
extern const ConvolutionKernels convolution_avx512_vnni;

// Computes the call with the active instruction set on at most `threads` threads.
void convolution(const ConvolutionCall& call, int threads);

}  // namespace taut
