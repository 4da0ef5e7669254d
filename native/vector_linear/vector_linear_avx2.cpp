// AVX2: weights are expanded, half a line at a time, with the multiplication of two codes at once that the source for
// AVX-512 explains.
#include "int8_linear/vector_avx2.h"
#include "vector_linear/vector_linear.h"

namespace taut {
namespace {

float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale row = row_scale<Vector>(largest_magnitude(x, element, depth), largest_folded);
    auto* values = reinterpret_cast<std::int16_t*>(out);
    __builtin_memset(out, 0, groups * group_depth * sizeof(std::int16_t));
    if (row.inverse == 0.0f) return row.scale;
    for (std::int64_t first = 0; first < depth; first += vector_depth) {
        const std::int64_t count = first + vector_depth < depth ? vector_depth : depth - first;
        const void* vector = value_at(x, element, first);
        const std::uint32_t magnitude = largest_magnitude(vector, element, count);
        if (magnitude == 0) continue;
        const __m128 largest = _mm_set_ss(__builtin_bit_cast(float, magnitude) * row.inverse * (1.0f / largest_code));
        const float ceiling = _mm_cvtss_f32(_mm_ceil_ss(largest, largest));
        const float scale = ceiling < 1.0f ? 1.0f : ceiling > 15.0f ? 15.0f : ceiling;
        const __m256 factor = _mm256_set1_ps(row.inverse * (1.0f / scale));
        const __m256i scales = _mm256_set1_epi32(static_cast<int>(scale));
        // No clamp: |value * factor| is at most 7 but for three roundings, and such a value rounds to 7. The row's
        // stride leaves room for a whole last vector.
        for_each_vector(vector, element, count, [&](std::int64_t k, __m256 value) {
            const __m256i code = _mm256_cvtps_epi32(_mm256_mul_ps(value, factor));
            const __m256i folded = _mm256_mullo_epi32(code, scales);
            const __m256i narrow = _mm256_permute4x64_epi64(_mm256_packs_epi32(folded, folded), 0x08);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(values + first + k), _mm256_castsi256_si128(narrow));
        });
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
