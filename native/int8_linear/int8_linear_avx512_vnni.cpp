// AVX-512 VNNI: vpdpbusd multiplies unsigned by signed bytes, so x is stored with an offset of 128, and the sums start
// at -128 times each channel's sum of weights to take it back. Sums wrap modulo 2^32 on the way, the result fits.
#include "int8_linear/vector_avx512.h"

namespace taut {
namespace {

float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale scale = measure(x, element, depth);
    if (scale.inverse == 0.0f) {
        __builtin_memset(out, 0x80, groups * group_depth);
    } else {
        quantise_values(x, element, depth, scale.inverse, out);  // the row's stride leaves room for a whole vector
    }
    return scale.scale;
}

// `parts` independent sums per output hide the latency of vpdpbusd where a tile has few rows.
template <int rows, int blocks>
void panel(const Int8LinearTile& tile) {
    constexpr int parts = rows * blocks <= 4 ? 2 : 1;
    __m512i sums[parts][rows][blocks];
    const std::int8_t* weights[blocks];
#pragma GCC unroll 4
    for (int block = 0; block < blocks; ++block) {
        weights[block] = tile.packed + block * tile.block_stride;
        const __m512i totals = _mm512_loadu_si512(weights[block] + tile.groups * group_bytes);
        const __m512i start = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(totals, 7));
#pragma GCC unroll 2
        for (int part = 0; part < parts; ++part) {
#pragma GCC unroll 6
            for (int row = 0; row < rows; ++row) sums[part][row][block] = part == 0 ? start : _mm512_setzero_si512();
        }
    }
    const std::uint8_t* x = tile.x;
    const auto step = [&](std::int64_t group, int part) __attribute__((always_inline)) {
        __m512i weight[blocks];
#pragma GCC unroll 4
        for (int block = 0; block < blocks; ++block) {
            weight[block] = _mm512_loadu_si512(weights[block] + group * group_bytes);
        }
#pragma GCC unroll 6
        for (int row = 0; row < rows; ++row) {
            int four;
            __builtin_memcpy(&four, x + row * tile.x_stride + group * group_depth, 4);
            const __m512i value = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int block = 0; block < blocks; ++block) {
                sums[part][row][block] = _mm512_dpbusd_epi32(sums[part][row][block], value, weight[block]);
            }
        }
    };
    std::int64_t group = 0;
    for (; group + parts <= tile.groups; group += parts) {
        step(group, 0);
        if constexpr (parts == 2) step(group + 1, 1);
    }
    if constexpr (parts == 2) {
        if (group < tile.groups) step(group, 0);
    }
    // Unrolled whole, so that the sums live in registers until here.
    alignas(64) std::int32_t out[rows][blocks * block_channels];
#pragma GCC unroll 6
    for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
        for (int block = 0; block < blocks; ++block) {
            __m512i sum = sums[0][row][block];
            if constexpr (parts == 2) sum = _mm512_add_epi32(sum, sums[1][row][block]);
            _mm512_store_si512(out[row] + block * block_channels, sum);
        }
    }
    finish_tile<Vector>(tile, out[0], blocks * block_channels);
}

template <int rows>
void choose_blocks(const Int8LinearTile& tile) {
    switch (tile.blocks) {
        case 1: return panel<rows, 1>(tile);
        case 2: return panel<rows, 2>(tile);
        case 3: return panel<rows, 3>(tile);
        default: return panel<rows, 4>(tile);
    }
}

void tile(const Int8LinearTile& tile) {
    switch (tile.rows) {
        case 1: return choose_blocks<1>(tile);
        case 2: return choose_blocks<2>(tile);
        case 3: return choose_blocks<3>(tile);
        case 4: return choose_blocks<4>(tile);
        case 5: return choose_blocks<5>(tile);
        default: return choose_blocks<6>(tile);
    }
}

}  // namespace

constinit const Int8LinearKernels int8_linear_avx512_vnni{6, 4, 4, quantise, tile};

}  // namespace taut
