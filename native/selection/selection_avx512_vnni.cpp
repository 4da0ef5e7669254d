#include <immintrin.h>

#include "selection/elements.h"

namespace taut {
namespace {

inline __m512i magnitudes(__m512 values) {
    return _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(static_cast<int>(magnitude_mask)));
}

constexpr std::int64_t lanes16 = 16, vectors = 64, step = lanes16 * vectors;

// Indices of candidates: they follow from the places, in memory or in a cache, or are brought along, or nobody asks for
// them.
enum class Indices { places, cached_places, given, none };

// Candidates in vectors.
template <Indices kind>
class Source {
   public:
    explicit Source(const Candidates& from) : from_(from) {}

    __m512 values(std::int64_t at) const { return _mm512_loadu_ps(from_.values + at); }

    __m512i indices(std::int64_t at) const {
        if constexpr (kind == Indices::given) return _mm512_loadu_si512(from_.indices + at);
        const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return _mm512_add_epi32(iota, _mm512_set1_epi32(static_cast<int>(from_.first + at)));
    }

    // Reading ahead of the processor, which would stop while results are stored. Tensors pass by the caches: they leave
    // their place there to the results, which are read once more.
    void fetch(std::int64_t at) const {
        if constexpr (kind == Indices::places) {
            _mm_prefetch(reinterpret_cast<const char*>(from_.values + at), _MM_HINT_NTA);
        } else if constexpr (kind == Indices::given) {
            _mm_prefetch(reinterpret_cast<const char*>(from_.values + at), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(from_.indices + at), _MM_HINT_T0);
        }
    }

   private:
    const Candidates from_;
};

// Lanes within a band.
class Choice {
   public:
    explicit Choice(Band band)
        : least_(_mm512_set1_epi32(static_cast<int>(band.least))),
          span_(_mm512_set1_epi32(static_cast<int>(band.span))) {}

    __mmask16 operator()(__m512 values) const {
        return _mm512_cmplt_epu32_mask(_mm512_sub_epi32(magnitudes(values), least_), span_);
    }

   private:
    __m512i least_, span_;
};

// Packs in registers and stores vectors, whole ones or halves where these do: packing into memory is slow on some
// processors.
template <bool halves, Indices kind>
inline void store(const Source<kind>& source, std::int64_t at, __mmask16 mask, Entries& out) {
    const __m512 values = _mm512_maskz_compress_ps(mask, source.values(at));
    const __m512i indices = _mm512_maskz_compress_epi32(mask, source.indices(at));
    const int count = __builtin_popcount(mask);
    if (halves && count <= 8) {
        if (kind != Indices::none) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.indices + out.count), _mm512_castsi512_si256(indices));
        }
        _mm256_storeu_ps(out.values + out.count, _mm512_castps512_ps256(values));
    } else {
        if (kind != Indices::none) _mm512_storeu_si512(out.indices + out.count, indices);
        _mm512_storeu_ps(out.values + out.count, values);
    }
    out.count += count;
}

// One step where few are in the band: first the masks, then only the vectors that hold any, since a branch for each vector
// would be foretold wrongly.
template <Indices kind>
void collect_few(const Candidates& from, std::int64_t begin, Band band, Entries& out) {
    const Source<kind> source(from);
    const Choice chosen(band);
    alignas(64) __mmask16 masks[vectors];
    for (int v = 0; v < vectors; ++v) {
        const std::int64_t at = begin + v * lanes16;
        source.fetch(at + 2 * step);
        masks[v] = chosen(source.values(at));
    }
    const __m512i low = _mm512_load_si512(masks), high = _mm512_load_si512(masks + vectors / 2);
    std::uint64_t any = _mm512_test_epi16_mask(low, low) |
                        static_cast<std::uint64_t>(_mm512_test_epi16_mask(high, high)) << (vectors / 2);
    for (; any != 0; any &= any - 1) {
        const int v = std::countr_zero(any);
        const std::int64_t at = begin + v * lanes16;
        if (out.count + lanes16 <= out.capacity) {
            store<false>(source, at, masks[v], out);
        } else {
            collect_loop(from, at, at + lanes16, band, out);
        }
    }
}

// One step for which there is room: no branch at all, or where halves do one that is foretold.
template <bool halves, Indices kind>
void collect_many(const Candidates& from, std::int64_t begin, Band band, Entries& out) {
    const Source<kind> source(from);
    const Choice chosen(band);
    Entries local = out;  // in registers
    for (std::int64_t at = begin; at < begin + step; at += lanes16) {
        source.fetch(at + 2 * step);
        store<halves>(source, at, chosen(source.values(at)), local);
    }
    out.count = local.count;
}

// How a step is done follows from how many entries the one before it held.
template <Indices kind>
void collect_from(const Candidates& from, Band band, Entries& out) {
    constexpr std::int64_t many = 48, most_halves = 256;
    std::int64_t i = 0;
    for (; i + step <= from.size; i += step) {
        const std::int64_t before = out.count;
        if (out.recent < many || out.count + step > out.capacity) {
            collect_few<kind>(from, i, band, out);
        } else if (out.recent <= most_halves) {
            collect_many<true, kind>(from, i, band, out);
        } else {
            collect_many<false, kind>(from, i, band, out);
        }
        out.recent = out.count - before;
    }
    const Source<kind> source(from);
    const Choice chosen(band);
    for (; i + lanes16 <= from.size && out.count + lanes16 <= out.capacity; i += lanes16) {
        if (const __mmask16 mask = chosen(source.values(i))) store<false>(source, i, mask, out);
    }
    collect_loop(from, i, from.size, band, out);
}

void collect(const Candidates& from, Band band, Entries& out) {
    if (out.indices == nullptr) {
        collect_from<Indices::none>(from, band, out);
    } else if (from.indices != nullptr) {
        collect_from<Indices::given>(from, band, out);
    } else if (from.cached) {
        collect_from<Indices::cached_places>(from, band, out);
    } else {
        collect_from<Indices::places>(from, band, out);
    }
}

struct Pair {
    __m512d low, high;
};

inline Pair widen(__m512 values) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(values)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(values, 1))};
}

inline void save(double (&to)[moment_lanes], const Pair& from) {
    _mm512_storeu_pd(to, from.low);
    _mm512_storeu_pd(to + 8, from.high);
}

// Mantissas and exponents of the magnitudes in some lanes, none of them 0.
struct Logarithms {
    __m512d product = _mm512_set1_pd(1.0);
    __m512i exponent = _mm512_setzero_si512();

    void take(__m512d values, __mmask8 lanes) {
        const __m512i one = _mm512_set1_epi64(static_cast<long long>(double_one));
        const __m512i bits = _mm512_mask_mov_epi64(one, lanes, _mm512_castpd_si512(values));
        const __m512i mantissa = _mm512_and_si512(bits, _mm512_set1_epi64(static_cast<long long>(double_mantissa)));
        product = _mm512_mul_pd(product, _mm512_castsi512_pd(_mm512_or_si512(mantissa, one)));
        exponent = _mm512_add_epi64(exponent, _mm512_srli_epi64(bits, 52));
    }
};

template <bool log>
void sum(const float* x, std::int64_t size, std::uint32_t least, double threshold, MomentLanes& lanes) {
    const __m512i bound = _mm512_set1_epi32(static_cast<int>(least));
    const __m512d offset = _mm512_set1_pd(threshold);
    Pair total{_mm512_setzero_pd(), _mm512_setzero_pd()}, square = total;
    Logarithms low, high;
    __m512i largest = _mm512_setzero_si512();
    lanes = {};
    for_each_16(x, size, [&](const float* run) {
        const __m512i bits = magnitudes(_mm512_loadu_ps(run));
        const __mmask16 above = _mm512_cmpge_epu32_mask(bits, bound);
        const auto below_8 = static_cast<__mmask8>(above), from_8 = static_cast<__mmask8>(above >> 8);
        const Pair value = widen(_mm512_castsi512_ps(bits));
        const Pair excess{_mm512_maskz_sub_pd(below_8, value.low, offset),
                          _mm512_maskz_sub_pd(from_8, value.high, offset)};
        largest = _mm512_mask_max_epi32(largest, above, largest, bits);
        lanes.count += __builtin_popcount(above);
        total = {_mm512_add_pd(total.low, excess.low), _mm512_add_pd(total.high, excess.high)};
        square = {_mm512_add_pd(square.low, _mm512_mul_pd(excess.low, excess.low)),
                  _mm512_add_pd(square.high, _mm512_mul_pd(excess.high, excess.high))};
        if constexpr (log) {
            low.take(value.low, below_8);
            high.take(value.high, from_8);
        }
    });
    save(lanes.sum, total);
    save(lanes.square, square);
    save(lanes.product, {low.product, high.product});
    _mm512_storeu_si512(lanes.exponent, low.exponent);
    _mm512_storeu_si512(lanes.exponent + 8, high.exponent);
    lanes.largest = static_cast<std::uint32_t>(_mm512_reduce_max_epi32(largest));
}

void moments(const float* x, std::int64_t size, std::uint32_t least, double threshold, bool log, MomentLanes& lanes) {
    log ? sum<true>(x, size, least, threshold, lanes) : sum<false>(x, size, least, threshold, lanes);
}

void pack_signs(const float* x, std::int64_t size, std::uint8_t* packed) {
    std::int64_t i = 0;
    for (; i + 16 <= size; i += 16) {
        const __mmask16 mask = _mm512_movepi32_mask(_mm512_loadu_si512(x + i));
        std::memcpy(packed + i / 8, &mask, 2);
    }
    pack_signs_loop(x + i, size - i, packed + i / 8);
}

void majority(const std::uint8_t* packed, std::int64_t rows, std::int64_t stride, std::int64_t size, float scale,
              float* y) {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80000000u));
    const __m512 magnitude = _mm512_set1_ps(scale);
    std::int64_t i = 0;
    for (; i + 16 <= size; i += 16) {
        __m512i sum = _mm512_set1_epi32(static_cast<int>(rows));
        for (std::int64_t row = 0; row < rows; ++row) {
            __mmask16 mask;
            std::memcpy(&mask, packed + row * stride + i / 8, 2);
            sum = _mm512_mask_sub_epi32(sum, mask, sum, _mm512_set1_epi32(2));
        }
        const __m512 signed_scale =
            _mm512_castsi512_ps(_mm512_xor_si512(_mm512_and_si512(sum, sign), _mm512_castps_si512(magnitude)));
        _mm512_storeu_ps(y + i, _mm512_maskz_mov_ps(_mm512_cmpneq_epi32_mask(sum, zero), signed_scale));
    }
    majority_loop(packed + i / 8, rows, stride, size - i, scale, y + i);
}

}  // namespace

const SelectionKernels selection_avx512_vnni = {
    add_loop,   histogram_loop, refine_loop,  count_loop,    collect,             moments,
    pack_signs, majority,       largest_loop, quantise_loop, dequantise_add_loop,
};

}  // namespace taut
