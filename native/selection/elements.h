// Loops that the compiler vectorises by itself, and single elements. Everything is local to the file that includes it:
// each is compiled for one instruction set.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "selection/selection.h"

namespace taut {
namespace {

constexpr std::uint32_t magnitude_mask = 0x7fffffff;
constexpr std::uint64_t double_mantissa = (std::uint64_t{1} << 52) - 1;
constexpr std::uint64_t double_one = std::uint64_t{1023} << 52;

inline std::uint32_t magnitude(float value) { return std::bit_cast<std::uint32_t>(value) & magnitude_mask; }

void add_loop(const float* gradient, float* residual, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) residual[i] += gradient[i];
}

void histogram_loop(const float* x, std::int64_t size, int shift, std::int64_t stride, std::uint32_t* bins) {
    std::int64_t i = 0;
    for (; i + histogram_copies <= size; i += histogram_copies) {
        for (int copy = 0; copy < histogram_copies; ++copy) ++bins[copy * stride + (magnitude(x[i + copy]) >> shift)];
    }
    for (; i < size; ++i) ++bins[magnitude(x[i]) >> shift];
}

void refine_loop(const float* x, std::int64_t size, std::uint32_t bin, std::uint32_t* counters) {
    constexpr std::int64_t group = 64;
    constexpr std::uint32_t low = (1u << bin_shift) - 1;
    const std::uint32_t start = bin << bin_shift;
    for (std::int64_t begin = 0; begin < size; begin += group) {
        const std::int64_t end = std::min(size, begin + group);
        std::uint32_t found = 0;
        for (std::int64_t i = begin; i < end; ++i) found |= magnitude(x[i]) - start - 1 < low ? 1 : 0;
        if (found == 0) continue;
        for (std::int64_t i = begin; i < end; ++i) {
            const std::uint32_t rest = magnitude(x[i]) - start;
            if (rest - 1 < low) ++counters[rest];
        }
    }
}

std::int64_t count_loop(const float* x, std::int64_t size, std::uint32_t least) {
    std::int64_t total = 0;
    for (std::int64_t begin = 0; begin < size; begin += 1 << 16) {
        const std::int64_t end = std::min<std::int64_t>(size, begin + (1 << 16));
        std::uint32_t found = 0;
        for (std::int64_t i = begin; i < end; ++i) found += magnitude(x[i]) >= least ? 1 : 0;
        total += found;
    }
    return total;
}

// Appends entry i if there is room, and counts it.
inline void append(const Candidates& from, std::int64_t i, Entries& out) {
    if (out.count < out.capacity) {
        out.values[out.count] = from.values[i];
        if (out.indices != nullptr) {
            out.indices[out.count] = from.indices != nullptr ? from.indices[i] : static_cast<std::int32_t>(from.first + i);
        }
    }
    ++out.count;
}

inline bool contains(Band band, float value) { return magnitude(value) - band.least < band.span; }

void collect_loop(const Candidates& from, std::int64_t begin, std::int64_t end, Band band, Entries& out) {
    for (std::int64_t i = begin; i < end; ++i) {
        if (contains(band, from.values[i])) append(from, i, out);
    }
}

void pack_signs_loop(const float* x, std::int64_t size, std::uint8_t* packed) {
    for (std::int64_t begin = 0; begin < size; begin += 8) {
        const std::int64_t count = std::min<std::int64_t>(8, size - begin);
        unsigned byte = 0;
        for (std::int64_t i = 0; i < count; ++i) byte |= (std::bit_cast<std::uint32_t>(x[begin + i]) >> 31) << i;
        packed[begin / 8] = static_cast<std::uint8_t>(byte);
    }
}

void majority_loop(const std::uint8_t* packed, std::int64_t rows, std::int64_t stride, std::int64_t size, float scale,
                   float* y) {
    for (std::int64_t begin = 0; begin < size; begin += 8) {
        std::int64_t negative[8] = {};
        for (std::int64_t row = 0; row < rows; ++row) {
            const unsigned byte = packed[row * stride + begin / 8];
            for (int i = 0; i < 8; ++i) negative[i] += byte >> i & 1;
        }
        for (std::int64_t i = 0; i < std::min<std::int64_t>(8, size - begin); ++i) {
            const std::int64_t sum = rows - 2 * negative[i];
            y[begin + i] = sum > 0 ? scale : sum < 0 ? -scale : 0.0f;
        }
    }
}

std::uint32_t largest_loop(const float* x, std::int64_t size) {
    std::int32_t largest = 0;
    for (std::int64_t i = 0; i < size; ++i) largest = std::max(largest, static_cast<std::int32_t>(magnitude(x[i])));
    return static_cast<std::uint32_t>(largest);
}

// The final mix of MurmurHash3.
inline std::uint32_t mix(std::uint32_t value) {
    value = (value ^ value >> 16) * 0x85ebca6bu;
    value = (value ^ value >> 13) * 0xc2b2ae35u;
    return value ^ value >> 16;
}

void quantise_loop(const float* x, std::int64_t size, std::uint64_t seed, std::int64_t first, float step, int levels,
                   std::int8_t* codes) {
    const std::uint32_t low = static_cast<std::uint32_t>(seed);
    const std::uint32_t high = static_cast<std::uint32_t>(seed >> 32);
    const std::uint32_t start = static_cast<std::uint32_t>(first);
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(size); ++i) {
        const std::uint32_t random = mix(mix(start + static_cast<std::uint32_t>(i) + low * 0x9e3779b9u) ^ high);
        const float uniform = static_cast<float>(static_cast<std::int32_t>(random >> 8)) * 0x1p-24f;
        const std::int32_t code = static_cast<std::int32_t>(std::fabs(x[i]) / step + uniform);
        const std::int32_t bounded = code < levels ? code : levels;
        codes[i] = static_cast<std::int8_t>(std::bit_cast<std::int32_t>(x[i]) < 0 ? -bounded : bounded);
    }
}

void dequantise_add_loop(const std::int8_t* codes, std::int64_t size, float step, float* y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] += step * static_cast<float>(codes[i]);
}

// Calls body(x, size) for whole runs of 16, the last one filled up with zeros, which change no sum.
template <class Body>
inline void for_each_16(const float* x, std::int64_t size, const Body& body) {
    std::int64_t i = 0;
    for (; i + moment_lanes <= size; i += moment_lanes) body(x + i);
    if (i < size) {
        float last[moment_lanes] = {};
        std::memcpy(last, x + i, static_cast<std::size_t>(size - i) * sizeof(float));
        body(last);
    }
}

}  // namespace
}  // namespace taut
