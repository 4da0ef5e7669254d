#include <immintrin.h>

#include <array>

#include "selection/elements.h"

namespace taut {
namespace {

constexpr std::int64_t lanes8 = 8;

inline __m256i magnitudes(__m256 values) {
    return _mm256_and_si256(_mm256_castps_si256(values), _mm256_set1_epi32(static_cast<int>(magnitude_mask)));
}

// For each mask of 8 bits the positions of its set bits, lowest first.
constexpr auto packings = [] {
    std::array<std::array<std::uint8_t, 8>, 256> table{};
    for (int mask = 0; mask < 256; ++mask) {
        int count = 0;
        for (int bit = 0; bit < 8; ++bit) {
            if (mask >> bit & 1) table[mask][count++] = static_cast<std::uint8_t>(bit);
        }
    }
    return table;
}();

inline void store(__m256i indices, __m256 values, unsigned mask, Entries& out) {
    const __m256i order =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packings[mask].data())));
    if (out.indices != nullptr) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.indices + out.count),
                            _mm256_permutevar8x32_epi32(indices, order));
    }
    _mm256_storeu_ps(out.values + out.count, _mm256_permutevar8x32_ps(values, order));
    out.count += __builtin_popcount(mask);
}

// Lanes of at least `least`, as a comparison with the bound below it: both are signed then, and it may be -1.
inline __m256i reaches(__m256i bits, std::uint32_t least) {
    return _mm256_cmpgt_epi32(bits, _mm256_set1_epi32(static_cast<int>(least - 1)));
}

// First the masks of 64 vectors, while the next ones are fetched; then only the vectors that hold any entry: a branch for
// each vector would be foretold wrongly where some per cent are selected.
void collect(const Candidates& from, Band band, Entries& out) {
    constexpr std::int64_t vectors = 64, step = lanes8 * vectors;
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    // Signed comparisons of what is moved by 2^31 are unsigned ones.
    const __m256i start = _mm256_set1_epi32(static_cast<int>(band.least ^ 0x80000000));
    const __m256i span = _mm256_set1_epi32(static_cast<int>(band.span ^ 0x80000000));
    Entries local = out;
    std::int64_t i = 0;
    for (; i + step <= from.size; i += step) {
        std::uint8_t masks[vectors];
        std::uint64_t any = 0;
        for (int v = 0; v < vectors; ++v) {
            const float* values = from.values + i + v * lanes8;
            _mm_prefetch(reinterpret_cast<const char*>(values + 2 * step), _MM_HINT_T0);
            const __m256i rest = _mm256_sub_epi32(magnitudes(_mm256_loadu_ps(values)), start);
            const __m256i chosen = _mm256_cmpgt_epi32(span, rest);
            masks[v] = static_cast<std::uint8_t>(_mm256_movemask_ps(_mm256_castsi256_ps(chosen)));
            any |= static_cast<std::uint64_t>(masks[v] != 0) << v;
        }
        for (; any != 0; any &= any - 1) {
            const int v = std::countr_zero(any);
            const std::int64_t at = i + v * lanes8;
            if (local.count + lanes8 > local.capacity) {
                collect_loop(from, at, at + lanes8, band, local);
                continue;
            }
            const __m256i indices =
                from.indices != nullptr
                    ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from.indices + at))
                    : _mm256_add_epi32(iota, _mm256_set1_epi32(static_cast<int>(from.first + at)));
            store(indices, _mm256_loadu_ps(from.values + at), masks[v], local);
        }
    }
    collect_loop(from, i, from.size, band, local);
    out = local;
}

constexpr int quads = 4;  // vectors of 4 doubles in the 16 lanes

inline std::uint32_t reduce_largest(__m256i values) {
    std::uint32_t all[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(all), values);
    return *std::max_element(all, all + 8);
}

inline __m256d widen(const float* x) {
    const __m128 bits = _mm_and_ps(_mm_loadu_ps(x), _mm_castsi128_ps(_mm_set1_epi32(static_cast<int>(magnitude_mask))));
    return _mm256_cvtps_pd(bits);
}

template <bool log>
void sum(const float* x, std::int64_t size, std::uint32_t least, double threshold, MomentLanes& lanes) {
    __m256d total[quads], square[quads], product[quads];
    __m256i exponent[quads];
    for (int q = 0; q < quads; ++q) {
        total[q] = square[q] = _mm256_setzero_pd();
        product[q] = _mm256_set1_pd(1.0);
        exponent[q] = _mm256_setzero_si256();
    }
    const __m256d offset = _mm256_set1_pd(threshold);
    const __m256i one = _mm256_set1_epi64x(static_cast<long long>(double_one));
    const __m256i mantissa_mask = _mm256_set1_epi64x(static_cast<long long>(double_mantissa));
    __m256i largest = _mm256_setzero_si256();
    lanes = {};
    for_each_16(x, size, [&](const float* run) {
        __m256i above[2];
        for (int half = 0; half < 2; ++half) {
            const __m256i bits = magnitudes(_mm256_loadu_ps(run + half * lanes8));
            above[half] = reaches(bits, least);
            largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, above[half]));
            const int mask = _mm256_movemask_ps(_mm256_castsi256_ps(above[half]));
            lanes.count += __builtin_popcount(static_cast<unsigned>(mask));
        }
        for (int q = 0; q < quads; ++q) {
            const __m256i half = above[q / 2];
            const __m128i narrow = q % 2 == 0 ? _mm256_castsi256_si128(half) : _mm256_extracti128_si256(half, 1);
            const __m256d mask = _mm256_castsi256_pd(_mm256_cvtepi32_epi64(narrow));
            const __m256d value = widen(run + 4 * q);
            const __m256d excess = _mm256_and_pd(mask, _mm256_sub_pd(value, offset));
            total[q] = _mm256_add_pd(total[q], excess);
            square[q] = _mm256_add_pd(square[q], _mm256_mul_pd(excess, excess));
            if constexpr (log) {
                const __m256i bits = _mm256_castpd_si256(_mm256_blendv_pd(_mm256_castsi256_pd(one), value, mask));
                const __m256i mantissa = _mm256_or_si256(_mm256_and_si256(bits, mantissa_mask), one);
                product[q] = _mm256_mul_pd(product[q], _mm256_castsi256_pd(mantissa));
                exponent[q] = _mm256_add_epi64(exponent[q], _mm256_srli_epi64(bits, 52));
            }
        }
    });
    for (int q = 0; q < quads; ++q) {
        _mm256_storeu_pd(lanes.sum + 4 * q, total[q]);
        _mm256_storeu_pd(lanes.square + 4 * q, square[q]);
        _mm256_storeu_pd(lanes.product + 4 * q, product[q]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes.exponent + 4 * q), exponent[q]);
    }
    lanes.largest = reduce_largest(largest);
}

void moments(const float* x, std::int64_t size, std::uint32_t least, double threshold, bool log, MomentLanes& lanes) {
    log ? sum<true>(x, size, least, threshold, lanes) : sum<false>(x, size, least, threshold, lanes);
}

void pack_signs(const float* x, std::int64_t size, std::uint8_t* packed) {
    std::int64_t i = 0;
    for (; i + lanes8 <= size; i += lanes8) {
        packed[i / 8] = static_cast<std::uint8_t>(_mm256_movemask_ps(_mm256_loadu_ps(x + i)));
    }
    pack_signs_loop(x + i, size - i, packed + i / 8);
}

void majority(const std::uint8_t* packed, std::int64_t rows, std::int64_t stride, std::int64_t size, float scale,
              float* y) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i zero = _mm256_setzero_si256();
    const __m256 positive = _mm256_set1_ps(scale), negative = _mm256_set1_ps(-scale);
    std::int64_t i = 0;
    for (; i + lanes8 <= size; i += lanes8) {
        __m256i sum = _mm256_set1_epi32(static_cast<int>(rows));
        for (std::int64_t row = 0; row < rows; ++row) {
            const __m256i byte = _mm256_and_si256(_mm256_set1_epi32(packed[row * stride + i / 8]), bits);
            const __m256i set = _mm256_cmpeq_epi32(byte, bits);
            sum = _mm256_add_epi32(sum, _mm256_add_epi32(set, set));
        }
        const __m256 above = _mm256_castsi256_ps(_mm256_cmpgt_epi32(sum, zero));
        const __m256 below = _mm256_castsi256_ps(_mm256_cmpgt_epi32(zero, sum));
        _mm256_storeu_ps(y + i, _mm256_or_ps(_mm256_and_ps(above, positive), _mm256_and_ps(below, negative)));
    }
    majority_loop(packed + i / 8, rows, stride, size - i, scale, y + i);
}

}  // namespace

const SelectionKernels selection_avx2 = {
    add_loop,   histogram_loop, refine_loop,  count_loop,    collect,             moments,
    pack_signs, majority,       largest_loop, quantise_loop, dequantise_add_loop,
};

}  // namespace taut
