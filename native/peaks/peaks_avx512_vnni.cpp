#include <immintrin.h>

#include "peaks/loops.h"

namespace taut {
namespace {

struct Vector {
    using Float = __m512;
    static constexpr int floats = 16;
    static constexpr int dot_products = 64;
    static Float set(float value) { return _mm512_set1_ps(value); }
    static __m512i integers(int value) { return _mm512_set1_epi32(value); }
    static Float multiply_add(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static __m512i dot(__m512i sum, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(sum, a, b); }
    static __m512i exclusive_or(__m512i a, const std::uint8_t* p) {
        return _mm512_xor_si512(a, _mm512_loadu_si512(p));
    }
};

}  // namespace

constinit const PeakLoops peak_loops_avx512_vnni = peak_loops<Vector>();

}  // namespace taut
