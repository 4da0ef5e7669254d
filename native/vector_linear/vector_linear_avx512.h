// What the sources for AVX-512 VNNI share.
#pragma once

#include <immintrin.h>

#include "vector_linear/vector_linear.h"

#define TAUT_INLINE __attribute__((always_inline))

namespace taut {

inline constexpr int panel_blocks = 4;

// Quantises one row as Inputs::vsq4 in the layout of int8_linear and returns gamma.
float quantise_vsq4_avx512_vnni(const void* x, Element element, std::int64_t depth, std::int64_t groups,
                                std::uint8_t* out);

// The kernels for one row, which read the weights as they are stored.
Int8LinearKernels single_row_avx512_vnni(Inputs inputs);

}  // namespace taut
