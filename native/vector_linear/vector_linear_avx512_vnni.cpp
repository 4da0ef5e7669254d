// AVX-512 VNNI. Folding takes few instructions: with codes c = q + 8 and scales up to 15, c * sq <= 225 fits a byte, so
// one 16-bit multiplication makes two products, and subtracting 8 * sq from each byte leaves q * sq.
#include "int8_linear/vectors_avx512.h"
#include "vector_linear/vector_linear.h"

namespace taut {
namespace {

#define TAUT_INLINE __attribute__((always_inline))

// Largest magnitude of each of 16 vectors.
TAUT_INLINE inline __m512 reduce_each(__m512 (&v)[16]) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        const __m512 a = v[2 * i], b = v[2 * i + 1];
        v[i] = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m512d a = _mm512_castps_pd(v[2 * i]), b = _mm512_castps_pd(v[2 * i + 1]);
        v[i] = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    const auto fold = [](__m512 a, __m512 b) {
        return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    return fold(fold(v[0], v[1]), fold(v[2], v[3]));
}

// Quantises up to 16 vectors of a row that begin at `first`.
template <bool full>
TAUT_INLINE inline void quantise_vectors(const void* x, Element element, std::int64_t first, std::int64_t depth, float inverse,
                                  std::uint8_t* out) {
    const __m512 magnitude = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff));
    __m512 values[16];
    int vectors = 16;
    if constexpr (full) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            values[i] = _mm512_and_ps(load_values<true>(x, element, first + vector_depth * i, 16), magnitude);
        }
    } else {
        vectors = static_cast<int>((depth - first + vector_depth - 1) / vector_depth);
        for (int i = 0; i < 16; ++i) values[i] = _mm512_setzero_ps();
        for (int i = 0; i < vectors; ++i) {
            const std::int64_t k = first + vector_depth * i;
            const int count = static_cast<int>(depth - k < vector_depth ? depth - k : vector_depth);
            values[i] = _mm512_and_ps(load_values<false>(x, element, k, count), magnitude);
        }
    }
    const __m512 largest = reduce_each(values);
    const __m512 steps = _mm512_mul_ps(_mm512_mul_ps(largest, _mm512_set1_ps(inverse)), _mm512_set1_ps(1.0f / largest_code));
    const __m512 ceiling = _mm512_roundscale_ps(steps, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    const __m512 scale = _mm512_max_ps(_mm512_set1_ps(1.0f), _mm512_min_ps(_mm512_set1_ps(15.0f), ceiling));
    alignas(64) float factors[16];
    alignas(64) std::int32_t scales[16];
    _mm512_store_ps(factors, _mm512_mul_ps(_mm512_set1_ps(inverse), _mm512_div_ps(_mm512_set1_ps(1.0f), scale)));
    _mm512_store_si512(scales, _mm512_cvtps_epi32(scale));
    const __m128i offset = _mm_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 4
    for (int i = 0; i < vectors; ++i) {
        const std::int64_t k = first + vector_depth * i;
        const int count = static_cast<int>(full || depth - k >= vector_depth ? vector_depth : depth - k);
        const __m512 value = load_values<full>(x, element, k, count);
        // No clamp: |value * factor| is at most 7 but for three roundings, and such a value rounds to 7.
        const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(value, _mm512_set1_ps(factors[i])));
        // The low half of each lane holds the code, the low half of the scale is the scale, its high half is zero.
        const __m512i folded = _mm512_madd_epi16(code, _mm512_set1_epi32(scales[i]));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + k), _mm_xor_si128(_mm512_cvtepi32_epi8(folded), offset));
    }
}

float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale row = row_scale<Vector>(largest_magnitude(x, element, 0, depth), largest_folded);
    if (row.inverse == 0.0f) {
        __builtin_memset(out, 0x80, groups * group_depth);
        return row.scale;
    }
    std::int64_t k = 0;
    for (; k + 16 * vector_depth <= depth; k += 16 * vector_depth) {
        quantise_vectors<true>(x, element, k, depth, row.inverse, out);
    }
    if (k < depth) quantise_vectors<false>(x, element, k, depth, row.inverse, out);
    return row.scale;
}

struct Shuffle {
    alignas(64) std::uint8_t bytes[64];
};

// From byte j of each channel's four to the low byte of its two words, or to its four bytes.
constexpr Shuffle spread(int j, bool words) {
    Shuffle shuffle{};
    for (int i = 0; i < 64; ++i) {
        shuffle.bytes[i] = words && i % 2 == 1 ? 0x80 : static_cast<std::uint8_t>(i % 16 / 4 * 4 + j);
    }
    return shuffle;
}
constexpr Shuffle to_words[4] = {spread(0, true), spread(1, true), spread(2, true), spread(3, true)};
constexpr Shuffle to_bytes[4] = {spread(0, false), spread(1, false), spread(2, false), spread(3, false)};

// Calls body(group, weights of four groups) for each vector of a block, with the folded weights.
template <class Body>
TAUT_INLINE inline const std::int8_t* for_each_folded(const std::int8_t* block, std::int64_t groups, const Body& body) {
    const __m512i low = _mm512_set1_epi8(15);
    std::int64_t group = 0;
    while (group < groups) {
        const __m512i scales = _mm512_loadu_si512(block);
        block += scale_bytes;
        const __m512i parts[2] = {_mm512_and_si512(scales, low), _mm512_and_si512(_mm512_srli_epi16(scales, 4), low)};
        const __m512i eights[2] = {_mm512_slli_epi16(parts[0], 3), _mm512_slli_epi16(parts[1], 3)};
        for (int pair = 0; pair < span_vectors / 2 && group < groups; ++pair) {
            const __m512i word_shuffle = _mm512_load_si512(to_words[pair].bytes);
            const __m512i byte_shuffle = _mm512_load_si512(to_bytes[pair].bytes);
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const __m512i scale = _mm512_shuffle_epi8(parts[half], word_shuffle);
                const __m512i offset = _mm512_shuffle_epi8(eights[half], byte_shuffle);
                __m512i weights[4];
#pragma GCC unroll 2
                for (int line = 0; line < 2; ++line) {
                    const __m512i codes = _mm512_loadu_si512(block + line * 64);
                    const __m512i first = _mm512_and_si512(codes, low);
                    const __m512i second = _mm512_and_si512(_mm512_srli_epi16(codes, 4), low);
                    weights[2 * line] = _mm512_sub_epi8(_mm512_mullo_epi16(first, scale), offset);
                    weights[2 * line + 1] = _mm512_sub_epi8(_mm512_mullo_epi16(second, scale), offset);
                }
                block += vector_bytes;
                body(group, weights);
                group += vector_groups;
            }
        }
    }
    return block;
}

void expand(const std::int8_t* block, std::int64_t groups, std::int8_t* out) {
    block = for_each_folded(block, groups, [&](std::int64_t group, const __m512i(&weights)[4]) TAUT_INLINE {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) _mm512_store_si512(out + (group + i) * group_bytes, weights[i]);
    });
    __builtin_memcpy(out + groups * group_bytes, block, trailer_groups * group_bytes);
}

// One block at a time; `parts` independent sums per output hide the latency of vpdpbusd.
template <int rows>
void panel(const Int8LinearTile& tile) {
    constexpr int parts = rows <= 2 ? 4 : rows <= 6 ? 2 : 1;
    alignas(64) std::int32_t out[rows][4 * block_channels];
    for (int index = 0; index < tile.blocks; ++index) {
        __m512i sums[parts][rows];
#pragma GCC unroll 4
        for (int part = 0; part < parts; ++part) {
#pragma GCC unroll 12
            for (int row = 0; row < rows; ++row) sums[part][row] = _mm512_setzero_si512();
        }
        const std::int8_t* end = for_each_folded(
            tile.packed + index * tile.block_stride, tile.groups,
            [&](std::int64_t group, const __m512i(&weights)[4]) TAUT_INLINE {
                const std::uint8_t* x = tile.x + group * group_depth;
#pragma GCC unroll 12
                for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 4
                    for (int i = 0; i < 4; ++i) {
                        int four;
                        __builtin_memcpy(&four, x + row * tile.x_stride + i * group_depth, 4);
                        sums[i % parts][row] =
                            _mm512_dpbusd_epi32(sums[i % parts][row], _mm512_set1_epi32(four), weights[i]);
                    }
                }
            });
        const __m512i start = _mm512_slli_epi32(_mm512_loadu_si512(end), 7);
#pragma GCC unroll 12
        for (int row = 0; row < rows; ++row) {
            __m512i sum = _mm512_sub_epi32(sums[0][row], start);
#pragma GCC unroll 4
            for (int part = 1; part < parts; ++part) sum = _mm512_add_epi32(sum, sums[part][row]);
            _mm512_store_si512(out[row] + index * block_channels, sum);
        }
    }
    for (int row = 0; row < rows; ++row) finish_row<Vector>(tile, row, out[row]);
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
        default: return panel<8>(tile);
    }
}

}  // namespace

constinit const VectorLinearKernels vector_linear_avx512_vnni{quantise, expand, tile, 8, 8};

}  // namespace taut
