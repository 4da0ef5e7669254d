// AVX-512 VNNI. Folding takes few instructions: with codes c = q + 8 and scales up to 15, c * sq <= 225 fits a byte, so
// one 16-bit multiplication makes two products, and subtracting 8 * sq from each byte leaves q * sq. A few rows read the
// weights as they are stored and fold them in registers, once for every tile of rows: less to read than expanded ones.
#include "int8_linear/vector_avx512.h"
#include "vector_linear/vector_linear_avx512.h"

namespace taut {
namespace {

constexpr int most_rows = 8;
// Measured: beyond this, expanding once and the larger tile of int8_linear are faster.
constexpr std::int64_t few_rows = 24;

struct Shuffle {
    alignas(64) std::uint8_t bytes[64];
};

// Copies byte j of each channel's four to all four.
constexpr Shuffle spread(int j) {
    Shuffle shuffle{};
    for (int i = 0; i < 64; ++i) shuffle.bytes[i] = static_cast<std::uint8_t>(i % 16 / 4 * 4 + j);
    return shuffle;
}
constexpr Shuffle spreads[4] = {spread(0), spread(1), spread(2), spread(3)};

// Calls body(group, weights) for each vector of some blocks, with the folded weights of its four groups; `block` goes
// to the trailers.
template <int blocks, class Body>
TAUT_INLINE inline void for_each_folded(const std::int8_t* (&block)[blocks], std::int64_t groups, const Body& body) {
    const __m512i low = _mm512_set1_epi8(15);
    std::int64_t group = 0;
    while (group < groups) {
        __m512i scales[blocks][2];
#pragma GCC unroll 4
        for (int b = 0; b < blocks; ++b) {
            const __m512i line = _mm512_loadu_si512(block[b]);
            block[b] += scale_bytes;
            scales[b][0] = _mm512_and_si512(line, low);
            scales[b][1] = _mm512_and_si512(_mm512_srli_epi16(line, 4), low);
        }
        for (int pair = 0; pair < span_vectors / 2 && group < groups; ++pair) {
            const __m512i to_bytes = _mm512_load_si512(spreads[pair].bytes);
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                __m512i weights[blocks][4];
#pragma GCC unroll 4
                for (int b = 0; b < blocks; ++b) {
                    const __m512i scale = _mm512_shuffle_epi8(scales[b][half], to_bytes);
                    const __m512i word = _mm512_srli_epi16(scale, 8);
                    const __m512i eight = _mm512_slli_epi16(scale, 3);
#pragma GCC unroll 2
                    for (int line = 0; line < 2; ++line) {
                        const __m512i codes = _mm512_loadu_si512(block[b] + line * group_bytes);
                        const __m512i first = _mm512_and_si512(codes, low);
                        const __m512i second = _mm512_and_si512(_mm512_srli_epi16(codes, 4), low);
                        weights[b][2 * line] = _mm512_sub_epi8(_mm512_mullo_epi16(first, word), eight);
                        weights[b][2 * line + 1] = _mm512_sub_epi8(_mm512_mullo_epi16(second, word), eight);
                    }
                    block[b] += vector_bytes;
                }
                body(group, weights);
                group += vector_groups;
            }
        }
    }
}

void expand(const std::int8_t* source, std::int64_t groups, std::int8_t* out) {
    const std::int8_t* block[1] = {source};
    for_each_folded(block, groups, [&](std::int64_t group, const __m512i(&weights)[1][4]) TAUT_INLINE {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) _mm512_store_si512(out + (group + i) * group_bytes, weights[0][i]);
    });
    __builtin_memcpy(out + groups * group_bytes, block[0], trailer_groups * group_bytes);
}

// Sums of a tile's rows and one or two of its blocks, from `first`; `parts` independent sums per output hide the latency
// of vpdpbusd.
template <int rows, int blocks>
TAUT_INLINE inline void multiply(const Int8LinearTile& tile, int first, std::int32_t* out) {
    constexpr int parts = rows * blocks <= 3 ? 4 : rows * blocks <= 8 ? 2 : 1;
    __m512i sums[parts][rows][blocks];
#pragma GCC unroll 4
    for (int part = 0; part < parts; ++part) {
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
            for (int b = 0; b < blocks; ++b) sums[part][row][b] = _mm512_setzero_si512();
        }
    }
    const std::int8_t* block[blocks];
    for (int b = 0; b < blocks; ++b) block[b] = tile.packed + (first + b) * tile.block_stride;
    for_each_folded(block, tile.groups, [&](std::int64_t group, const __m512i(&weights)[blocks][4]) TAUT_INLINE {
        const std::uint8_t* x = tile.x + group * group_depth;
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                int four;
                __builtin_memcpy(&four, x + row * tile.x_stride + i * group_depth, 4);
                const __m512i value = _mm512_set1_epi32(four);
#pragma GCC unroll 4
                for (int b = 0; b < blocks; ++b) {
                    sums[i % parts][row][b] = _mm512_dpbusd_epi32(sums[i % parts][row][b], value, weights[b][i]);
                }
            }
        }
    });
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
        const __m512i start = _mm512_slli_epi32(_mm512_loadu_si512(block[b]), 7);
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
            __m512i sum = _mm512_sub_epi32(sums[0][row][b], start);
#pragma GCC unroll 4
            for (int part = 1; part < parts; ++part) sum = _mm512_add_epi32(sum, sums[part][row][b]);
            _mm512_store_si512(out + (row * panel_blocks + first + b) * block_channels, sum);
        }
    }
}

template <int rows>
void panel(const Int8LinearTile& tile) {
    alignas(64) std::int32_t out[rows * panel_blocks * block_channels];
    int block = 0;
    for (; block + 2 <= tile.blocks; block += 2) multiply<rows, 2>(tile, block, out);
    if (block < tile.blocks) multiply<rows, 1>(tile, block, out);
    finish_tile<Vector>(tile, out, panel_blocks * block_channels);
}

void tile(const Int8LinearTile& tile) {
    switch (tile.rows) {
        case 1: return panel<1>(tile);
        case 2: return panel<2>(tile);
        case 3: return panel<3>(tile);
        case 4: return panel<4>(tile);
        case 5: return panel<5>(tile);
        case 6: return panel<6>(tile);
        case 7: return panel<7>(tile);
        default: return panel<most_rows>(tile);
    }
}

}  // namespace

Int8LinearKernels vector_linear_avx512_vnni(std::int64_t rows, Inputs inputs) {
    if (rows == 1) return single_row_avx512_vnni(inputs);
    Int8LinearKernels kernels = int8_linear_avx512_vnni;
    if (inputs == Inputs::vsq4) kernels.quantise = quantise_vsq4_avx512_vnni;
    if (rows <= few_rows) {
        kernels.tile = tile;
        kernels.tile_rows = most_rows;
        kernels.tile_blocks = panel_blocks;
    } else {
        kernels.expand = expand;
    }
    return kernels;
}

}  // namespace taut
