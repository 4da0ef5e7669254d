// AVX-512 VNNI, one row: bound by how fast weights arrive, so each takes as few instructions as can be. The stored codes
// c = q + 8 are the unsigned operand of vpdpbusd; each vector's sum starts at -8 times the sum of its activations, gains
// c times x, and is multiplied by the scale in 16 bits, which hold it: |sum of q * x| <= 16 * 8 * 128.
#include "int8_linear/vector_avx512.h"
#include "vector_linear/vector_linear_avx512.h"

namespace taut {
namespace {

// Four bytes of activations and a quarter of the vector's int32 that follows them all.
constexpr int group_size = group_depth + 1;

struct Shuffle {
    alignas(64) std::uint8_t bytes[64];
};

// Moves byte j of each channel's four to the lowest and clears the others.
constexpr Shuffle isolate(int j) {
    Shuffle shuffle{};
    for (int i = 0; i < 64; ++i) shuffle.bytes[i] = i % 4 == 0 ? static_cast<std::uint8_t>(i % 16 + j) : 0x80;
    return shuffle;
}
constexpr Shuffle isolations[4] = {isolate(0), isolate(1), isolate(2), isolate(3)};

// Takes the offset of 128 from a quantised row, and writes -8 times the sum of each vector behind it.
void append_sums(std::int64_t groups, std::uint8_t* row) {
    const __m256i offset = _mm256_set1_epi8(static_cast<char>(0x80));
    const __m256i minus_eight = _mm256_set1_epi8(-8);
    const __m256i start = _mm256_set1_epi32(8 * 128 * group_depth);
    std::uint8_t* sums = row + groups * group_depth;
    // Two vectors at a time, of which a block has an even number.
    for (std::int64_t group = 0; group < groups; group += 2 * vector_groups) {
        auto* place = reinterpret_cast<__m256i*>(row + group * group_depth);
        const __m256i bytes = _mm256_loadu_si256(place);
        __m256i sum = _mm256_dpbusd_epi32(start, bytes, minus_eight);
        sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0x4e));
        sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0xb1));
        _mm256_storeu_si256(place, _mm256_xor_si256(bytes, offset));
        const std::int32_t both[2] = {_mm256_extract_epi32(sum, 0), _mm256_extract_epi32(sum, 4)};
        __builtin_memcpy(sums + group, both, sizeof both);
    }
}

template <Inputs inputs>
float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const auto rows = inputs == Inputs::int8 ? int8_linear_avx512_vnni.quantise : quantise_vsq4_avx512_vnni;
    const float scale = rows(x, element, depth, groups, out);
    append_sums(groups, out);
    return scale;
}

TAUT_INLINE inline __m512i broadcast(const std::uint8_t* p) {
    int four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

__m512i multiply(const std::int8_t* block, const std::uint8_t* x, std::int64_t groups) {
    const __m512i low = _mm512_set1_epi8(15);
    const std::uint8_t* x_sums = x + groups * group_depth;
    __m512i sums[2] = {};
    std::int64_t group = 0;
    while (group < groups) {
        const __m512i line = _mm512_loadu_si512(block);
        block += scale_bytes;
        const __m512i scales[2] = {_mm512_and_si512(line, low), _mm512_and_si512(_mm512_srli_epi16(line, 4), low)};
        for (int pair = 0; pair < span_vectors / 2 && group < groups; ++pair) {
            const __m512i isolation = _mm512_load_si512(isolations[pair].bytes);
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                __m512i sum = broadcast(x_sums + group);
#pragma GCC unroll 2
                for (int part = 0; part < 2; ++part) {
                    const __m512i codes = _mm512_loadu_si512(block + part * group_bytes);
                    const std::uint8_t* values = x + (group + 2 * part) * group_depth;
                    sum = _mm512_dpbusd_epi32(sum, _mm512_and_si512(codes, low), broadcast(values));
                    sum = _mm512_dpbusd_epi32(sum, _mm512_and_si512(_mm512_srli_epi16(codes, 4), low),
                                              broadcast(values + group_depth));
                }
                // The high half of the scale is zero, so only the low half of the sum counts.
                sums[half] = _mm512_dpwssd_epi32(sums[half], sum, _mm512_shuffle_epi8(scales[half], isolation));
                block += vector_bytes;
                group += vector_groups;
            }
        }
    }
    return _mm512_add_epi32(sums[0], sums[1]);
}

void tile(const Int8LinearTile& tile) {
    alignas(64) std::int32_t out[panel_blocks * block_channels];
    for (int block = 0; block < tile.blocks; ++block) {
        _mm512_store_si512(out + block * block_channels,
                           multiply(tile.packed + block * tile.block_stride, tile.x, tile.groups));
    }
    finish_tile<Vector>(tile, out, panel_blocks * block_channels);
}

}  // namespace

Int8LinearKernels single_row_avx512_vnni(Inputs inputs) {
    return {1, panel_blocks, group_size, inputs == Inputs::int8 ? quantise<Inputs::int8> : quantise<Inputs::vsq4>, tile};
}

}  // namespace taut
