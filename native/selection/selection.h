// What gradient compression does to a tensor of float32: moments of magnitudes, selection by rank or by threshold, sums
// at given places, codes of one bit and of a few bits.
//
// Magnitudes are compared as integers, their bits without the sign: infinity is above every number and NaN above
// infinity, so that both are selected first and never vanish. Sums of moments run in double over blocks of
// `moment_block` elements with 16 lanes each, added in a fixed order. So results have the same bits for every instruction
// set and number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/isa.h"

namespace taut {

// A bin is the top 16 bits of a magnitude: the exponent and 8 bits of the mantissa.
inline constexpr int bin_shift = 15;
inline constexpr std::int64_t magnitude_bins = 1 << 16;
// A histogram is spread over copies, or equal neighbours would wait for each other's store.
inline constexpr int histogram_copies = 4;
inline constexpr std::int64_t moment_block = 4096;
inline constexpr std::int64_t moment_lanes = 16;
// Elements that share a step of the stochastic codes.
inline constexpr std::int64_t quantise_block = 512;

// Where selected entries go; `count` grows past `capacity`, but nothing is written there.
struct Entries {
    std::int32_t* indices;  // or null where they are not wanted
    float* values;
    std::int64_t capacity;
    std::int64_t count;
    std::int64_t recent = 0;  // of the candidates looked at last, which tells how to look at the next ones
};

// Values to select from. Entry i has index `indices[i]`, or first + i where `indices` is null.
struct Candidates {
    const float* values;
    const std::int32_t* indices;
    std::int64_t first;
    std::int64_t size;
    bool cached = false;  // they have been used just before
};

// Magnitudes by their bits: `span` of them from `least` on.
struct Band {
    std::uint32_t least;
    std::uint32_t span;
};

// All magnitudes of at least these bits; none from magnitude_end on.
inline constexpr std::uint32_t magnitude_end = 0x80000000;
inline constexpr Band at_least(std::uint32_t least) { return {least, magnitude_end - least}; }

// Sums over one block; lane i % 16 takes element i.
struct MomentLanes {
    double sum[moment_lanes];
    double square[moment_lanes];
    double product[moment_lanes];         // of mantissas in [1, 2)
    std::int64_t exponent[moment_lanes];  // with the bias of double
    std::int64_t count;
    std::uint32_t largest;                // bits of the largest magnitude
};

// What one instruction set implements.
struct SelectionKernels {
    // residual += gradient
    void (*add)(const float* gradient, float* residual, std::int64_t size);
    // Counts magnitudes by their bits from `shift` on, into histogram_copies histograms `stride` apart, or into one where
    // that is 0.
    void (*histogram)(const float* x, std::int64_t size, int shift, std::int64_t stride, std::uint32_t* bins);
    // Counts the lower 15 bits of the magnitudes in one bin, but for the first: that is 0 most often, in sparse tensors.
    void (*refine)(const float* x, std::int64_t size, std::uint32_t bin, std::uint32_t* counters);
    // How many magnitudes have at least these bits.
    std::int64_t (*count)(const float* x, std::int64_t size, std::uint32_t least);
    // Appends those within the band, in order. The entries that are appended may take the place of the candidates, as long
    // as none overtakes them.
    void (*collect)(const Candidates& from, Band band, Entries& out);
    // Sums of |x| - threshold, and of the logarithm of |x|, where |x| has at least these bits, which are not 0; of at most
    // moment_block elements.
    void (*moments)(const float* x, std::int64_t size, std::uint32_t least, double threshold, bool log,
                    MomentLanes& lanes);
    // Bit i % 8 of byte i / 8 is the sign bit of element i.
    void (*pack_signs)(const float* x, std::int64_t size, std::uint8_t* packed);
    // Plus or minus `scale` as the majority of the rows says, 0 where it is split.
    void (*majority)(const std::uint8_t* packed, std::int64_t rows, std::int64_t stride, std::int64_t size, float scale,
                     float* y);
    std::uint32_t (*largest)(const float* x, std::int64_t size);
    // codes = round(x / step), up or down at random by the position, within +-levels.
    void (*quantise)(const float* x, std::int64_t size, std::uint64_t seed, std::int64_t first, float step, int levels,
                     std::int8_t* codes);
    // y += step * codes
    void (*dequantise_add)(const std::int8_t* codes, std::int64_t size, float step, float* y);
};

extern const SelectionKernels selection_scalar;
extern const SelectionKernels selection_avx2;
extern const SelectionKernels selection_avx512_vnni;

// Those of the active instruction set.
const SelectionKernels& selection_kernels();

struct TopKCall {
    const float* gradient;  // added to x first; null for none
    float* x;
    std::int64_t size;  // below 2^31
    std::int64_t k;     // 0 to size
    bool clear;         // sets selected entries of x to 0
    std::int32_t* indices;
    float* values;
};

// The k entries of largest magnitude in ascending order of their indices; of equal ones the first. Throws std::bad_alloc.
void top_k(const TopKCall& call, int threads);

// Entries with |x| > threshold, in ascending order; the first `capacity` of them are written, and cleared if asked. The
// threshold is not negative. Returns how many there are. Throws std::bad_alloc.
std::int64_t select_above(float* x, std::int64_t size, double threshold, bool clear, std::int64_t capacity,
                          std::int32_t* indices, float* values, int threads);

struct Moments {
    std::int64_t count;    // entries that the means are over
    double mean;           // of the magnitudes; 0 where there are none
    double second;         // mean of their squares
    double mean_log;       // of ln |x| over entries that are not 0; NaN unless asked for
    double maximum;
    std::int64_t nonzero;
};

// x += gradient unless that is null, then the moments of |x|, and if `bins` is not null its histogram of magnitude_bins
// counters. Throws std::bad_alloc.
Moments accumulate_moments(const float* gradient, float* x, std::int64_t size, bool log, std::int32_t* bins, int threads);

// Moments of |x| - threshold, but logarithms of |x|, over |x| > threshold. Throws std::bad_alloc.
Moments exceedance_moments(const float* x, std::int64_t size, double threshold, bool log, int threads);

// The first place whose index is outside 0 to size - 1, or count.
std::int64_t first_outside(const std::int32_t* indices, std::int64_t count, std::int64_t size);

// dense[indices[i]] += scale * values[i], one after the other. The indices are inside.
void scatter_add(float* dense, const std::int32_t* indices, const float* values, std::int64_t count, float scale);

void pack_signs(const float* x, std::int64_t size, std::uint8_t* packed, int threads);
void unpack_majority(const std::uint8_t* packed, std::int64_t rows, std::int64_t stride, std::int64_t size, float scale,
                     float* y, int threads);

// Codes of 2, 4 or 8 bits in two's complement, the first in the low bits of a byte; one step a block.
void quantise_stochastic(const float* x, std::int64_t size, int bits, std::uint64_t seed, std::uint8_t* codes,
                         float* steps, int threads);
void dequantise_add(const std::uint8_t* codes, const float* steps, std::int64_t size, int bits, float scale, float* y,
                    int threads);

}  // namespace taut
