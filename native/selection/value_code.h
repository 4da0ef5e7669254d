// A code for floats of similar magnitudes, bfloat16 or float32: the exponents take a few bits in place of eight. Lossless.
//
// Blocks of `value_block` values, the last one shorter:
//   1 byte   w, the bits of a short exponent, 0 to 4
//   1 byte   the exponent that the short exponent 1 stands for; 2 stands for the next larger one
//   for each value its sign and mantissa, 1 byte of a bfloat16, 3 little-endian bytes of a float32
//   for each value its short exponent, w bits, from the lowest bit on, filled up to a whole byte; 0 for none
//   for each value without a short exponent its exponent, 1 byte
//
// Entries that a selection takes have magnitudes from its threshold on and few of them large ones, so that two bits do for
// nearly all.
#pragma once

#include <cstdint>

namespace taut {

inline constexpr std::int64_t value_block = 512;

// Bytes that are enough for any `count` values of `width` bytes, 2 or 4.
std::int64_t value_code_bound(std::int64_t count, int width);

// Encodes values and returns the bytes written.
std::int64_t encode_values(const std::uint8_t* values, std::int64_t count, int width, std::uint8_t* code);

enum class ValueFault { none, truncated, width, exponent, trailing };

// Writes `count` values; what is written does not count after a fault. The code is not trusted.
ValueFault decode_values(const std::uint8_t* code, std::int64_t bytes, std::int64_t count, int width,
                         std::uint8_t* values);

}  // namespace taut
