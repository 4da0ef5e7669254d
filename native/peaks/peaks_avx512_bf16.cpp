#include <immintrin.h>

#include "peaks/loops.h"

namespace taut {
namespace {

void run(std::int64_t rounds) {
    auto ones = __m512bh(_mm512_set1_epi16(0x3f80));
    opaque(ones);
    __m512 sums[chains];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], ones, ones);
        asm volatile("");
    }
    for (auto& sum : sums) opaque(sum);
}

}  // namespace

constinit const ArithmeticLoop peak_bfloat16_avx512{run, 2.0 * chains * 32};

}  // namespace taut
