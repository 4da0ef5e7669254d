// AVX2: both operands widened to 16 bits and multiplied with vpmaddwd, which cannot saturate.
#include "convolution/expand.h"
#include "int8_linear/vector_avx2.h"

namespace taut {
namespace {

template <int rows>
void block(const ConvolutionTile& tile) {
    __m256i sums[rows][4] = {};
    const auto* weights = reinterpret_cast<const __m128i*>(tile.linear.packed);
    for (std::int64_t run = 0; run < tile.run_count; ++run) {
        const std::int64_t begin = tile.runs[run];
        for (std::int64_t offset = begin; offset < begin + tile.run_bytes; offset += 8, weights += 4) {
            __m256i x[rows];
#pragma GCC unroll 4
            for (int row = 0; row < rows; ++row) {
                long long four;
                __builtin_memcpy(&four, tile.pixels[row] + offset, 8);
                x[row] = _mm256_set1_epi64x(four);
            }
#pragma GCC unroll 4
            for (int quarter = 0; quarter < 4; ++quarter) {
                const __m256i weight = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights + quarter));
#pragma GCC unroll 4
                for (int row = 0; row < rows; ++row) {
                    sums[row][quarter] = _mm256_add_epi32(sums[row][quarter], _mm256_madd_epi16(x[row], weight));
                }
            }
        }
    }
    alignas(32) std::int32_t out[rows][block_channels];
    for (int row = 0; row < rows; ++row) {
        for (int half = 0; half < 2; ++half) {
            const __m256i pairs = _mm256_hadd_epi32(sums[row][2 * half], sums[row][2 * half + 1]);
            _mm256_store_si256(reinterpret_cast<__m256i*>(out[row] + 8 * half), _mm256_permute4x64_epi64(pairs, 0xd8));
        }
    }
    finish_tile<Vector>(tile.linear, out[0], block_channels);
}

void tile(const ConvolutionTile& tile) {
    switch (tile.linear.rows) {
        case 1: return block<1>(tile);
        case 2: return block<2>(tile);
        default: return block<3>(tile);
    }
}

}  // namespace

constinit const ConvolutionKernels convolution_avx2{{0, 3}, 2, 0, measure, quantise_values, expand_portably, tile};

}  // namespace taut
