// AVX2 vectors for epilogue.h and the quantisation of activations.
// Included once per translation unit, and local to it.
#pragma once

#include <immintrin.h>

#include "int8_linear/epilogue.h"

namespace taut {
namespace {

inline __m256i lane_mask(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

struct Vector {
    using Float = __m256;
    static constexpr int width = 8;
    static Float set(float value) { return _mm256_set1_ps(value); }
    static Float load(const float* p) { return _mm256_loadu_ps(p); }
    static Float load_part(const float* p, int count) { return _mm256_maskload_ps(p, lane_mask(count)); }
    static Float from_int(const std::int32_t* p) {
        return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
    static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
    static Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
    static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
    static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
    // 2^n for an integer n, -126 to 127, given 1.5 * 2^23 + n.
    static Float power_of_two(Float shifted) {
        const __m256i biased = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
    }
    static void store(float* p, Float value) { _mm256_storeu_ps(p, value); }
    static void store_part(float* p, int count, Float value) { _mm256_maskstore_ps(p, lane_mask(count), value); }
    static void store_bfloat16(std::uint16_t* p, int count, Float value) {
        const __m256i bits = _mm256_castps_si256(value);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
        const __m256i rounded = _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_set1_epi32(0x7fc0), nan);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
        alignas(16) std::uint16_t values[8];
        _mm_store_si128(reinterpret_cast<__m128i*>(values), _mm256_castsi256_si128(packed));
        for (int i = 0; i < count; ++i) p[i] = values[i];
    }
};

template <bool full>
__m256 load_values(const void* x, Element element, std::int64_t index, int count) {
    if (element == Element::float32) {
        const float* p = static_cast<const float*>(x) + index;
        return full ? Vector::load(p) : Vector::load_part(p, count);
    }
    const auto* p = static_cast<const std::uint16_t*>(x) + index;
    alignas(16) std::uint16_t values[8] = {};
    if (!full) {
        for (int i = 0; i < count; ++i) values[i] = p[i];
    }
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(full ? p : values));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
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
    __m256i largest = _mm256_setzero_si256();
    for_each_vector(x, element, count, [&](std::int64_t, __m256 value) {
        const __m256i bits = _mm256_and_si256(_mm256_castps_si256(value), _mm256_set1_epi32(0x7fffffff));
        largest = _mm256_max_epi32(largest, bits);
    });
    alignas(32) std::uint32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest);
    std::uint32_t magnitude = 0;
    for (std::uint32_t lane : lanes) magnitude = lane > magnitude ? lane : magnitude;
    return magnitude;
}

// The scale of `count` consecutive values together.
inline RowScale measure(const void* x, Element element, std::int64_t count) {
    return row_scale<Vector>(largest_magnitude(x, element, count));
}

// Quantises to 16 bits a value, for vpmaddwd. Writes whole vectors: up to 7 values past the end become zero.
inline void quantise_values(const void* x, Element element, std::int64_t count, float inverse, std::uint8_t* out) {
    auto* values = reinterpret_cast<std::int16_t*>(out);
    for_each_vector(x, element, count, [&](std::int64_t k, __m256 value) {
        const __m256i integer = _mm256_cvtps_epi32(_mm256_mul_ps(value, _mm256_set1_ps(inverse)));
        const __m256i narrow = _mm256_permute4x64_epi64(_mm256_packs_epi32(integer, integer), 0x08);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(values + k), _mm256_castsi256_si128(narrow));
    });
}

}  // namespace
}  // namespace taut
