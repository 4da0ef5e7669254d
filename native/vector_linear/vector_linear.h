// y = activation(x @ W^T + bias) with W in 4-bit codes under two levels of scales: w = q * sq * gamma, with |q| <= 7, a
// 4-bit integer sq for each vector of 16 input features, and a float gamma for each output channel.
//
// |q * sq| <= 105 fits eight bits, so the product is the one of int8_linear: weights are folded to q * sq on the way,
// exactly, and x becomes int8 in one of two ways (see Inputs).
//
// Packed weights: blocks of 16 output channels. A block holds one span for each eight vectors (the last may have fewer,
// but always an even number of them): a line of 64 bytes with the scales, then two lines of codes for each vector. Byte
// 4c + j of the scales holds those of channel c: the one of vector 2j in the low half, of vector 2j + 1 in the high
// half. Byte 4c + k of the first line of a vector holds its codes k (low half) and 4 + k (high half) of channel c, the
// second line those of 8 + k and 12 + k. Codes are stored as q + 8. The two lines that end a block of int8_linear, with
// the sums of q * sq, end this one too. What is missing has scale 0. The same layout for every instruction set.
// Source of the format: Dai et al., "VS-Quant: Per-vector Scaled Quantization" (MLSys 2021), section 4.
#pragma once

#include "int8_linear/int8_linear.h"

namespace taut {

// What activations become: int8 with one scale a row; or codes of four bits with a scale of four bits for each vector
// of 16 and one gamma a row, folded in the same way.
//
// The second kind, in float32, each operation rounded once, sums by halving (i and i + half), ties to even: a row with
// the largest magnitude m has gamma m / 105 and inverse 105 / m. A vector with the largest magnitude v has the scale
// s = ceil(v * inverse * (1 / 7)), from 1 to 15, or s - 1 (at least 1) if the sum of squares of x * inverse - s * q is
// smaller for it, where q = round(x * (inverse * (1 / s))), from -7 to 7.
enum class Inputs : int { int8 = 0, vsq4 = 1 };

inline constexpr std::int64_t vector_depth = 16;
inline constexpr std::int64_t vector_groups = vector_depth / group_depth;
inline constexpr std::int64_t vector_bytes = 2 * 64;
inline constexpr std::int64_t span_vectors = 8;
inline constexpr std::int64_t scale_bytes = 64;
inline constexpr float largest_code = 7.0f;
inline constexpr float largest_folded = 105.0f;

// Vectors in a block for this depth, and bytes of a block without its trailer. Static, so that no copy compiled for one
// instruction set serves another.
static inline constexpr std::int64_t block_vectors(std::int64_t depth) { return (depth + 31) / 32 * 2; }
static inline constexpr std::int64_t block_bytes(std::int64_t vectors) {
    return (vectors + span_vectors - 1) / span_vectors * scale_bytes + vectors * vector_bytes;
}

// What one instruction set uses for so many rows.
Int8LinearKernels vector_linear_scalar(std::int64_t rows, Inputs inputs);
Int8LinearKernels vector_linear_avx2(std::int64_t rows, Inputs inputs);
Int8LinearKernels vector_linear_avx512_vnni(std::int64_t rows, Inputs inputs);

// Computes the call with the active instruction set on at most `threads` threads; sets `groups` and `block_stride`
// itself.
void vector_linear(Int8LinearCall call, Inputs inputs, int threads);

}  // namespace taut
