// AVX2: weights are expanded, half a line at a time, with the multiplication of two codes at once that the source for
// AVX-512 explains.
#include "int8_linear/vector_avx2.h"
#include "vector_linear/vector_linear.h"

namespace taut {
namespace {

// A vector of activations; past its end it holds zeros.
struct Values {
    __m256 first, second;
};

Values load_vector(const void* x, Element element, std::int64_t index, std::int64_t count) {
    const auto load = [&](std::int64_t begin) {
        if (count >= begin + 8) return load_values<true>(x, element, index + begin, 8);
        if (count <= begin) return _mm256_setzero_ps();
        return load_values<false>(x, element, index + begin, static_cast<int>(count - begin));
    };
    return {load(0), load(8)};
}

float largest_of(const Values& values) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256 eight = _mm256_max_ps(_mm256_andnot_ps(sign, values.first), _mm256_andnot_ps(sign, values.second));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// One way to code a vector: its integers (code times scale), and their squared error in units of gamma.
struct Candidate {
    Values integers;
    float error;

    Candidate(const Values& values, float inverse, float scale) {
        integers.first = code(values.first, inverse, scale);
        integers.second = code(values.second, inverse, scale);
        const __m256 eight = _mm256_add_ps(square_error(values.first, integers.first, inverse),
                                           square_error(values.second, integers.second, inverse));
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        error = _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }

    static __m256 code(__m256 values, float inverse, float scale) {
        const __m256 most = _mm256_set1_ps(largest_code), least = _mm256_set1_ps(-largest_code);
        const __m256 scaled = _mm256_mul_ps(values, _mm256_set1_ps(inverse * (1.0f / scale)));
        const __m256 rounded = _mm256_round_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        return _mm256_mul_ps(_mm256_max_ps(least, _mm256_min_ps(most, rounded)), _mm256_set1_ps(scale));
    }

    static __m256 square_error(__m256 values, __m256 integers, float inverse) {
        const __m256 error = _mm256_sub_ps(_mm256_mul_ps(values, _mm256_set1_ps(inverse)), integers);
        return _mm256_mul_ps(error, error);
    }
};

float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale row = row_scale<Vector>(largest_magnitude(x, element, depth), largest_folded);
    auto* integers = reinterpret_cast<std::int16_t*>(out);
    __builtin_memset(out, 0, groups * group_depth * sizeof(std::int16_t));
    if (row.inverse == 0.0f) return row.scale;
    for (std::int64_t first = 0; first < depth; first += vector_depth) {
        const std::int64_t count = first + vector_depth < depth ? vector_depth : depth - first;
        const Values values = load_vector(x, element, first, count);
        const __m128 steps = _mm_set_ss(largest_of(values) * row.inverse * (1.0f / largest_code));
        const float ceiling = _mm_cvtss_f32(_mm_ceil_ss(steps, steps));
        const float high = ceiling < 1.0f ? 1.0f : ceiling > 15.0f ? 15.0f : ceiling;
        const Candidate above(values, row.inverse, high);
        const Candidate below(values, row.inverse, high > 2.0f ? high - 1.0f : 1.0f);
        const Values& closest = below.error < above.error ? below.integers : above.integers;
        // The row has room for a whole last vector.
        const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(closest.first), _mm256_cvtps_epi32(closest.second));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(integers + first), _mm256_permute4x64_epi64(words, 0xd8));
    }
    return row.scale;
}

__m256i load_half(const std::int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Eight channels of a block: the half lines at `half` times 32 bytes.
void expand_half(const std::int8_t* block, std::int64_t groups, std::int8_t* out) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i first_of_four = _mm256_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 0, 0, 0, 0, 4, 4,
                                                   4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    __m256i scales = _mm256_setzero_si256();
    for (std::int64_t group = 0; group < groups; group += vector_groups) {
        const std::int64_t vector = group / vector_groups;
        if (vector % span_vectors == 0) {
            scales = load_half(block);
            block += scale_bytes;
        } else {
            scales = _mm256_srli_epi32(scales, 4);
        }
        const __m256i bytes = _mm256_shuffle_epi8(_mm256_and_si256(scales, low), first_of_four);
        const __m256i words = _mm256_srli_epi16(bytes, 8);
        const __m256i offset = _mm256_slli_epi16(bytes, 3);
        for (int line = 0; line < 2; ++line) {
            const __m256i codes = load_half(block + line * group_bytes);
            for (int part = 0; part < 2; ++part) {
                const __m256i code = _mm256_and_si256(_mm256_srli_epi16(codes, 4 * part), low);
                const __m256i folded = _mm256_sub_epi8(_mm256_mullo_epi16(code, words), offset);
                _mm256_storeu_si256(
                    reinterpret_cast<__m256i*>(out + (group + 2 * line + part) * group_bytes), folded);
            }
        }
        block += vector_bytes;
    }
}

void expand(const std::int8_t* block, std::int64_t groups, std::int8_t* out) {
    expand_half(block, groups, out);
    expand_half(block + group_bytes / 2, groups, out + group_bytes / 2);
    __builtin_memcpy(out + groups * group_bytes, block + block_bytes(groups / vector_groups),
                     trailer_groups * group_bytes);
}

}  // namespace

Int8LinearKernels vector_linear_avx2(std::int64_t, Inputs inputs) {
    Int8LinearKernels kernels = int8_linear_avx2;
    if (inputs == Inputs::vsq4) kernels.quantise = quantise;
    kernels.expand = expand;
    return kernels;
}

}  // namespace taut
