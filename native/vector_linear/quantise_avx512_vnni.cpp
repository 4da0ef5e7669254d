// AVX-512: rows of activations to 4-bit codes times 4-bit scales, 16 vectors of 16 at a time.
#include "int8_linear/vector_avx512.h"
#include "vector_linear/vector_linear_avx512.h"

namespace taut {
namespace {

struct Largest {
    TAUT_INLINE static __m512 of(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
};
struct Sum {
    TAUT_INLINE static __m512 of(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
};

// Combines the lanes of each of four vectors that are 8 apart, then those that are 4 apart, which leaves it four lanes.
template <class Op>
TAUT_INLINE inline __m512 halve_four(__m512 a, __m512 b, __m512 c, __m512 d) {
    const __m512 ab = Op::of(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const __m512 cd = Op::of(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    return Op::of(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

// The rest: lanes that are 2 apart, then neighbours. Part i is of the vectors i, 4 + i, 8 + i and 12 + i; lane v of the
// result is of vector v.
template <class Op>
TAUT_INLINE inline __m512 finish_halving(const __m512 (&parts)[4]) {
    const auto halve = [](__m512 a, __m512 b) {
        return _mm512_castps_pd(Op::of(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    };
    const __m512d first = halve(parts[0], parts[1]), second = halve(parts[2], parts[3]);
    return Op::of(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                  _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
}

// Codes of values in units of their vector's scale are in -7 to 7.
TAUT_INLINE inline __m512 clamp(__m512 value) {
    constexpr int least_magnitude_with_sign_of_first = 2;
    return _mm512_range_ps(value, _mm512_set1_ps(largest_code), least_magnitude_with_sign_of_first);
}

// The scales of 16 vectors, as floats, and what values are multiplied by under each.
struct Scales {
    alignas(64) float scales[16];
    alignas(64) float factors[16];

    void set(__m512 scale, __m512 inverse) {
        const __m512 reciprocals = _mm512_setr_ps(0.0f, 1.0f, 1.0f / 2, 1.0f / 3, 1.0f / 4, 1.0f / 5, 1.0f / 6, 1.0f / 7,
                                                  1.0f / 8, 1.0f / 9, 1.0f / 10, 1.0f / 11, 1.0f / 12, 1.0f / 13,
                                                  1.0f / 14, 1.0f / 15);
        _mm512_store_ps(scales, scale);
        const __m512 reciprocal = _mm512_permutexvar_ps(_mm512_cvtps_epi32(scale), reciprocals);
        _mm512_store_ps(factors, _mm512_mul_ps(inverse, reciprocal));
    }

    // Squared errors of values of vector i, in units of gamma. Only a scale that was not rounded up can saturate.
    template <bool saturates>
    TAUT_INLINE __m512 errors(int i, __m512 value, __m512 in_gammas) const {
        __m512 scaled = _mm512_mul_ps(value, _mm512_set1_ps(factors[i]));
        if constexpr (saturates) scaled = clamp(scaled);
        const __m512 code = _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        // Code times scale is an integer, so that the fused operation rounds as the difference does.
        const __m512 error = _mm512_fnmadd_ps(code, _mm512_set1_ps(scales[i]), in_gammas);
        return _mm512_mul_ps(error, error);
    }

    // Codes times scales of vector i.
    TAUT_INLINE __m512i integers(int i, __m512 value) const {
        const __m512 scaled = clamp(_mm512_mul_ps(value, _mm512_set1_ps(factors[i])));
        const __m512 code = _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        return _mm512_cvtps_epi32(_mm512_mul_ps(code, _mm512_set1_ps(scales[i])));
    }
};

// Up to 16 vectors of a row.
template <Element element, bool full>
struct Group {
    const void* x;  // the row
    std::int64_t first, depth;

    TAUT_INLINE __m512 load(int i) const {
        const std::int64_t k = first + vector_depth * i;
        if constexpr (full) return load_values<true>(x, element, k, 16);
        if (k >= depth) return _mm512_setzero_ps();
        return load_values<false>(x, element, k, static_cast<int>(depth - k < vector_depth ? depth - k : vector_depth));
    }

    // The scales at which nothing saturates.
    TAUT_INLINE __m512 ceilings(__m512 inverse) const {
        const __m512 magnitude = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff));
        __m512 parts[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            __m512 v[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) v[j] = _mm512_and_ps(load(i + 4 * j), magnitude);
            parts[i] = halve_four<Largest>(v[0], v[1], v[2], v[3]);
        }
        const __m512 largest = _mm512_mul_ps(finish_halving<Largest>(parts), inverse);
        const __m512 steps = _mm512_mul_ps(largest, _mm512_set1_ps(1.0f / largest_code));
        const __m512 ceiling = _mm512_roundscale_ps(steps, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
        return _mm512_max_ps(_mm512_set1_ps(1.0f), _mm512_min_ps(_mm512_set1_ps(15.0f), ceiling));
    }

    // Those where the error under `below` is less than under `above`.
    TAUT_INLINE __mmask16 closer_below(const Scales& above, const Scales& below, __m512 inverse) const {
        __m512 above_parts[4], below_parts[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            __m512 a[4], b[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const __m512 value = load(i + 4 * j);
                const __m512 in_gammas = _mm512_mul_ps(value, inverse);
                a[j] = above.errors<false>(i + 4 * j, value, in_gammas);
                b[j] = below.errors<true>(i + 4 * j, value, in_gammas);
            }
            above_parts[i] = halve_four<Sum>(a[0], a[1], a[2], a[3]);
            below_parts[i] = halve_four<Sum>(b[0], b[1], b[2], b[3]);
        }
        const __m512 above_error = finish_halving<Sum>(above_parts), below_error = finish_halving<Sum>(below_parts);
        return _mm512_cmp_ps_mask(below_error, above_error, _CMP_LT_OQ);
    }

    // Four vectors at a time; those past the depth give zeros. `out` has room for an even number of vectors.
    TAUT_INLINE void store(const Scales& chosen, std::uint8_t* out) const {
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        const __m512i offset = _mm512_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 4
        for (int i = 0; i < 16; i += 4) {
            const std::int64_t k = first + vector_depth * i;
            if (!full && k >= depth) return;
            const __m512i pair = _mm512_packs_epi32(chosen.integers(i, load(i)), chosen.integers(i + 1, load(i + 1)));
            const __m512i other =
                _mm512_packs_epi32(chosen.integers(i + 2, load(i + 2)), chosen.integers(i + 3, load(i + 3)));
            const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(pair, other));
            const __m512i result = _mm512_xor_si512(bytes, offset);
            if (full || depth - k > 2 * vector_depth) {
                _mm512_storeu_si512(out + k, result);
            } else {
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k), _mm512_castsi512_si256(result));
            }
        }
    }
};

// Quantises groups of 16 vectors that begin at `first`, each step for all of them, since a step waits long for the last.
template <Element element, bool full, int groups>
void quantise_groups(const void* x, std::int64_t first, std::int64_t depth, float row_inverse, std::uint8_t* out) {
    const __m512 one = _mm512_set1_ps(1.0f), inverse = _mm512_set1_ps(row_inverse);
    Scales above[groups], below[groups];
    const auto group = [&](int g) {
        return Group<element, full>{x, first + 16 * vector_depth * g, depth};
    };
    for (int g = 0; g < groups; ++g) {
        const __m512 high = group(g).ceilings(inverse);
        above[g].set(high, inverse);
        below[g].set(_mm512_max_ps(one, _mm512_sub_ps(high, one)), inverse);
    }
    for (int g = 0; g < groups; ++g) {
        const __mmask16 closer = group(g).closer_below(above[g], below[g], inverse);
        _mm512_mask_store_ps(above[g].scales, closer, _mm512_load_ps(below[g].scales));
        _mm512_mask_store_ps(above[g].factors, closer, _mm512_load_ps(below[g].factors));
    }
    for (int g = 0; g < groups; ++g) group(g).store(above[g], out);
}

template <Element element>
void quantise_row(const void* x, std::int64_t depth, float inverse, std::uint8_t* out) {
    constexpr std::int64_t group_length = 16 * vector_depth;
    std::int64_t k = 0;
    for (; k + 4 * group_length <= depth; k += 4 * group_length) quantise_groups<element, true, 4>(x, k, depth, inverse, out);
    for (; k + group_length <= depth; k += group_length) quantise_groups<element, true, 1>(x, k, depth, inverse, out);
    if (k < depth) quantise_groups<element, false, 1>(x, k, depth, inverse, out);
}

}  // namespace

float quantise_vsq4_avx512_vnni(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale row = row_scale<Vector>(largest_magnitude(x, element, depth), largest_folded);
    if (row.inverse == 0.0f) {
        __builtin_memset(out, 0x80, groups * group_depth);
    } else if (element == Element::float32) {
        quantise_row<Element::float32>(x, depth, row.inverse, out);
    } else {
        quantise_row<Element::bfloat16>(x, depth, row.inverse, out);
    }
    return row.scale;
}

}  // namespace taut
