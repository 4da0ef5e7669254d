#include <immintrin.h>

#include "peaks/loops.h"

namespace taut {
namespace {

struct Vector {
    using Float = __m256;
    static constexpr int floats = 8;
    static constexpr int dot_products = 16;  // of the kernel's vpmaddwd + vpaddd
    static Float set(float value) { return _mm256_set1_ps(value); }
    static __m256i integers(int value) { return _mm256_set1_epi32(value); }
    static Float multiply_add(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    // The empty statement makes each product look new, or the compiler would multiply once for all chains.
    static __m256i dot(__m256i sum, __m256i a, __m256i b) {
        asm volatile("" : "+x"(a));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    }
    static __m256i exclusive_or(__m256i a, const std::uint8_t* p) {
        return _mm256_xor_si256(a, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
};

}  // namespace

constinit const PeakLoops peak_loops_avx2 = peak_loops<Vector>();

}  // namespace taut
