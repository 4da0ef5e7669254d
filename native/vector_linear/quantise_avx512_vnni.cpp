// AVX-512: rows of activations to 4-bit codes times 4-bit scales, 16 vectors of 16 at a time.
#include "int8_linear/vector_avx512.h"
#include "vector_linear/vector_linear_avx512.h"

namespace taut {
namespace {

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

}  // namespace

float quantise_vsq4_avx512_vnni(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale row = row_scale<Vector>(largest_magnitude(x, element, depth), largest_folded);
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

}  // namespace taut
