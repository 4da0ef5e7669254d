// AVX-512 VNNI: vpdpbusd multiplies unsigned by signed bytes, so x is stored with an offset of 128, and the sums start
// at -128 times each channel's sum of weights to take it back. Sums wrap modulo 2^32 on the way, the result fits.
#include "convolution/convolution.h"
#include "int8_linear/vector_avx512.h"

namespace taut {
namespace {

template <int rows, int blocks>
void panel(const ConvolutionTile& tile) {
    __m512i sums[rows][blocks];
    const std::int8_t* weights = tile.linear.packed;
    const std::int64_t block_stride = tile.linear.block_stride;
#pragma GCC unroll 4
    for (int block = 0; block < blocks; ++block) {
        const __m512i totals = _mm512_loadu_si512(weights + block * block_stride + tile.linear.groups * group_bytes);
        const __m512i start = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(totals, 7));
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) sums[row][block] = start;
    }
    const std::uint8_t* pixels[rows];
    for (int row = 0; row < rows; ++row) pixels[row] = tile.pixels[row];
    for (std::int64_t run = 0; run < tile.run_count; ++run) {
        const std::int64_t begin = tile.runs[run];
        for (std::int64_t offset = begin; offset < begin + tile.run_bytes; offset += group_depth) {
            __m512i weight[blocks];
#pragma GCC unroll 4
            for (int block = 0; block < blocks; ++block) {
                weight[block] = _mm512_loadu_si512(weights + block * block_stride);
            }
            weights += group_bytes;
#pragma GCC unroll 8
            for (int row = 0; row < rows; ++row) {
                int four;
                __builtin_memcpy(&four, pixels[row] + offset, 4);
                const __m512i value = _mm512_set1_epi32(four);
#pragma GCC unroll 4
                for (int block = 0; block < blocks; ++block) {
                    sums[row][block] = _mm512_dpbusd_epi32(sums[row][block], value, weight[block]);
                }
            }
        }
    }
    // Unrolled whole, so that the sums live in registers until here.
    alignas(64) std::int32_t out[rows][blocks * block_channels];
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
        for (int block = 0; block < blocks; ++block) {
            _mm512_store_si512(out[row] + block * block_channels, sums[row][block]);
        }
    }
    finish_tile<Vector>(tile.linear, out[0], blocks * block_channels);
}

template <int rows>
void choose_blocks(const ConvolutionTile& tile) {
    switch (tile.linear.blocks) {
        case 1: return panel<rows, 1>(tile);
        case 2: return panel<rows, 2>(tile);
        case 3: return panel<rows, 3>(tile);
        default: return panel<rows, 4>(tile);
    }
}

void tile(const ConvolutionTile& tile) {
    switch (tile.linear.rows) {
        case 1: return choose_blocks<1>(tile);
        case 2: return choose_blocks<2>(tile);
        case 3: return choose_blocks<3>(tile);
        case 4: return choose_blocks<4>(tile);
        case 5: return choose_blocks<5>(tile);
        case 6: return choose_blocks<6>(tile);
        case 7: return panel<7, 1>(tile);
        default: return panel<8, 1>(tile);
    }
}

// Nibble times scale is at most 225, so 16-bit products of two bytes at once do not carry into each other; 8 times the
// scale then takes the offset back, modulo 256.
void expand(const VectorBlock& block) {
    const std::int8_t* codes = block.packed;
    const std::int8_t* scales = codes + block.taps * block.vectors * vector_code_bytes;
    const __m512i low_nibbles = _mm512_set1_epi8(15);
    std::int8_t* out = block.out;
    for (std::int64_t tap = 0; tap < block.taps; ++tap) {
        for (std::int64_t vector = 0; vector < block.vectors; ++vector) {
            const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
            const __m128i bytes = _mm_and_si128(_mm_unpacklo_epi64(pairs, _mm_srli_epi16(pairs, 4)), _mm_set1_epi8(15));
            const __m512i lanes = _mm512_cvtepu8_epi32(bytes);
            const __m512i scale = _mm512_or_si512(lanes, _mm512_slli_epi32(lanes, 16));
            const __m512i offset = _mm512_or_si512(_mm512_slli_epi32(scale, 3), _mm512_slli_epi32(scale, 11));
#pragma GCC unroll 2
            for (int line = 0; line < 2; ++line) {
                const __m512i nibbles = _mm512_loadu_si512(codes + line * group_bytes);
                const __m512i low = _mm512_and_si512(nibbles, low_nibbles);
                const __m512i high = _mm512_and_si512(_mm512_srli_epi16(nibbles, 4), low_nibbles);
                std::int8_t* groups = out + 2 * line * group_bytes;
                _mm512_storeu_si512(groups, _mm512_sub_epi8(_mm512_mullo_epi16(low, scale), offset));
                _mm512_storeu_si512(groups + group_bytes, _mm512_sub_epi8(_mm512_mullo_epi16(high, scale), offset));
            }
            codes += vector_code_bytes;
            scales += vector_scale_bytes;
            out += vector_groups * group_bytes;
        }
        out -= (block.vectors * vector_groups - block.groups) * group_bytes;
    }
}

}  // namespace

constinit const ConvolutionKernels convolution_avx512_vnni{
    {0, 8, 6, 6, 6}, 1, 0x80, measure, quantise_values, expand, tile};

}  // namespace taut
