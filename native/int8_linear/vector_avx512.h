// AVX-512 vectors for epilogue.h and the quantisation of activations.
// Included once per translation unit, and local to it.
#pragma once

#include <immintrin.h>

#include "int8_linear/epilogue.h"

namespace taut {
namespace {

inline __mmask16 lane_mask(int count) { return static_cast<__mmask16>((1u << count) - 1u); }

struct Vector {
    using Float = __m512;
    static constexpr int width = 16;
    static Float set(float value) { return _mm512_set1_ps(value); }
    static Float load(const float* p) { return _mm512_loadu_ps(p); }
    static Float load_part(const float* p, int count) { return _mm512_maskz_loadu_ps(lane_mask(count), p); }
    static Float from_int(const std::int32_t* p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
    static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
    static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
    static Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
    static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
    static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
    // 2^n for an integer n, -126 to 127, given 1.5 * 2^23 + n.
    static Float power_of_two(Float shifted) {
        const __m512i biased = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127));
        return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
    }
    static void store(float* p, Float value) { _mm512_storeu_ps(p, value); }
    static void store_part(float* p, int count, Float value) { _mm512_mask_storeu_ps(p, lane_mask(count), value); }
    static void store_bfloat16(std::uint16_t* p, int count, Float value) {
        const __m512i bits = _mm512_castps_si512(value);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        const __m512i rounded = _mm512_mask_mov_epi32(_mm512_srli_epi32(sum, 16), nan, _mm512_set1_epi32(0x7fc0));
        _mm256_mask_storeu_epi16(p, lane_mask(count), _mm512_cvtepi32_epi16(rounded));
    }
};

template <bool full>
__m512 load_values(const void* x, Element element, std::int64_t index, int count) {
    if (element == Element::float32) {
        const float* p = static_cast<const float*>(x) + index;
        return full ? Vector::load(p) : Vector::load_part(p, count);
    }
    const auto* p = static_cast<const std::uint16_t*>(x) + index;
    const __m256i half = _mm256_maskz_loadu_epi16(lane_mask(full ? Vector::width : count), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Calls body(first index, vector) for each vector of the row; lanes past the depth are zero.
template <class Body>
void for_each_vector(const void* x, Element element, std::int64_t depth, const Body& body) {
    std::int64_t k = 0;
    for (; k + Vector::width <= depth; k += Vector::width) body(k, load_values<true>(x, element, k, Vector::width));
    if (k < depth) body(k, load_values<false>(x, element, k, static_cast<int>(depth - k)));
}

// The bits of the largest magnitude of `count` consecutive values; NaN counts as the largest.
inline std::uint32_t largest_magnitude(const void* x, Element element, std::int64_t count) {
    __m512i largest = _mm512_setzero_si512();
    for_each_vector(x, element, count, [&](std::int64_t, __m512 value) {
        const __m512i bits = _mm512_and_si512(_mm512_castps_si512(value), _mm512_set1_epi32(0x7fffffff));
        largest = _mm512_max_epu32(largest, bits);
    });
    return _mm512_reduce_max_epu32(largest);
}

// The scale of `count` consecutive values together.
inline RowScale measure(const void* x, Element element, std::int64_t count) {
    return row_scale<Vector>(largest_magnitude(x, element, count));
}

// Quantises to bytes with an offset of 128, for vpdpbusd. Writes whole vectors: up to 15 bytes past the end get the
// offset, which stands for zero.
inline void quantise_values(const void* x, Element element, std::int64_t count, float inverse, std::uint8_t* out) {
    const __m128i offset = _mm_set1_epi8(static_cast<char>(0x80));
    for_each_vector(x, element, count, [&](std::int64_t k, __m512 value) {
        const __m512i integer = _mm512_cvtps_epi32(_mm512_mul_ps(value, _mm512_set1_ps(inverse)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + k), _mm_xor_si128(_mm512_cvtepi32_epi8(integer), offset));
    });
}

}  // namespace
}  // namespace taut
