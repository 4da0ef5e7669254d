// AVX2: both operands widened to 16 bits and multiplied with vpmaddwd, which cannot saturate.
#include "int8_linear/vector_avx2.h"

namespace taut {
namespace {

float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale scale = measure(x, element, depth);
    if (scale.inverse == 0.0f) {
        __builtin_memset(out, 0, groups * group_depth * sizeof(std::int16_t));
    } else {
        quantise_values(x, element, depth, scale.inverse, out);  // the row's stride leaves room for a whole vector
    }
    return scale.scale;
}

template <int rows>
void block(const Int8LinearTile& tile) {
    __m256i sums[rows][4] = {};
    for (std::int64_t group = 0; group < tile.groups; ++group) {
        const auto* weights = reinterpret_cast<const __m128i*>(tile.packed + group * group_bytes);
        __m256i x[rows];
#pragma GCC unroll 4
        for (int row = 0; row < rows; ++row) {
            long long four;
            __builtin_memcpy(&four, tile.x + row * tile.x_stride + group * 8, 8);
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
    alignas(32) std::int32_t out[rows][block_channels];
    for (int row = 0; row < rows; ++row) {
        for (int half = 0; half < 2; ++half) {
            const __m256i pairs = _mm256_hadd_epi32(sums[row][2 * half], sums[row][2 * half + 1]);
            _mm256_store_si256(reinterpret_cast<__m256i*>(out[row] + 8 * half), _mm256_permute4x64_epi64(pairs, 0xd8));
        }
    }
    finish_tile<Vector>(tile, out[0], block_channels);
}

void tile(const Int8LinearTile& tile) {
    switch (tile.rows) {
        case 1: return block<1>(tile);
        case 2: return block<2>(tile);
        default: return block<3>(tile);
    }
}

}  // namespace

constinit const Int8LinearKernels int8_linear_avx2{3, 1, 8, quantise, tile};

}  // namespace taut
