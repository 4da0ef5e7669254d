// Deals tensors to threads: selection by threshold, sums at given places, and codes of signs and of a few bits.
#include "selection/selection.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/huge_pages.h"
#include "common/parallel.h"
#include "selection/magnitude.h"

namespace taut {
namespace {

constexpr std::int64_t elements_per_thread = 1 << 16;

// Runs body(range) for ranges that begin at multiples of `unit`.
template <class Body>
void for_each_share(std::int64_t size, std::int64_t unit, int threads, const Body& body) {
    const std::int64_t units = (size + unit - 1) / unit;
    threads = static_cast<int>(std::clamp<std::int64_t>(size / elements_per_thread, 1, threads));
    parallel(threads, [&](int thread, int count) {
        const Range range = share(units, thread, count);
        body(Range{range.begin * unit, std::min(size, range.end * unit)});
    });
}

// Largest magnitude that codes of so many bits hold.
constexpr int code_levels(int bits) { return (1 << (bits - 1)) - 1; }

// The least step with levels * step >= largest, so that no code has to be cut.
float code_step(float largest, int levels) {
    const float step = largest / static_cast<float>(levels);
    const double reached = static_cast<double>(step) * levels;
    return reached < largest ? std::nextafter(step, std::numeric_limits<float>::infinity()) : step;
}

template <int bits>
void pack_codes(const std::int8_t* codes, std::int64_t size, std::uint8_t* packed) {
    constexpr std::int64_t per_byte = 8 / bits;
    constexpr unsigned mask = (1u << bits) - 1;
    for (std::int64_t begin = 0; begin < size; begin += per_byte) {
        unsigned byte = 0;
        for (std::int64_t i = 0; i < per_byte; ++i) {
            byte |= (static_cast<unsigned>(codes[begin + i]) & mask) << (i * bits);
        }
        packed[begin / per_byte] = static_cast<std::uint8_t>(byte);
    }
}

template <int bits>
void unpack_codes(const std::uint8_t* packed, std::int64_t size, std::int8_t* codes) {
    constexpr std::int64_t per_byte = 8 / bits;
    for (std::int64_t begin = 0; begin < size; begin += per_byte) {
        const unsigned byte = packed[begin / per_byte];
        for (std::int64_t i = 0; i < per_byte; ++i) {
            const auto shifted = static_cast<std::int8_t>(byte << (8 - bits - i * bits) & 0xff);
            codes[begin + i] = static_cast<std::int8_t>(shifted >> (8 - bits));
        }
    }
}

}  // namespace

const SelectionKernels& selection_kernels() {
#ifdef TAUT_X86
    if (active_isa() == Isa::avx512_vnni) return selection_avx512_vnni;
    if (active_isa() == Isa::avx2) return selection_avx2;
#endif
    return selection_scalar;
}

std::int64_t select_above(float* x, std::int64_t size, double threshold, bool clear, std::int64_t capacity,
                          std::int32_t* indices, float* values, int threads) {
    const SelectionKernels& kernels = selection_kernels();
    const std::uint32_t least = bits_above(threshold);
    prefer_huge_pages(indices, static_cast<std::size_t>(capacity) * sizeof(std::int32_t));
    prefer_huge_pages(values, static_cast<std::size_t>(capacity) * sizeof(float));
    threads = static_cast<int>(std::clamp<std::int64_t>(size / elements_per_thread, 1, threads));
    std::vector<std::int64_t> starts(static_cast<std::size_t>(threads) + 1, 0);
    if (threads > 1) {
        parallel(threads, [&](int thread, int count) {
            for (int t = thread; t < threads; t += count) {
                const Range range = share(size, t, threads);
                starts[t + 1] = kernels.count(x + range.begin, range.end - range.begin, least);
            }
        });
        for (int t = 0; t < threads; ++t) starts[t + 1] += starts[t];
    }
    std::int64_t found = 0;
    parallel(threads, [&](int thread, int count) {
        for (int t = thread; t < threads; t += count) {
            const Range range = share(size, t, threads);
            const std::int64_t start = std::min(starts[t], capacity);
            Entries out{indices + start, values + start, capacity - start, 0};
            // A later thread's entries begin where these end.
            if (t + 1 < threads) out.capacity = std::min(starts[t + 1], capacity) - start;
            kernels.collect({x + range.begin, nullptr, range.begin, range.end - range.begin}, at_least(least), out);
            if (t + 1 == threads) found = starts[t] + out.count;
            if (clear) {
                const std::int64_t written = std::min(out.count, out.capacity);
                for (std::int64_t i = 0; i < written; ++i) x[out.indices[i]] = 0.0f;
            }
        }
    });
    return found;
}

std::int64_t first_outside(const std::int32_t* indices, std::int64_t count, std::int64_t size) {
    constexpr std::int64_t group = 1024;
    const auto bound = static_cast<std::uint32_t>(size);
    for (std::int64_t begin = 0; begin < count; begin += group) {
        const std::int64_t end = std::min(count, begin + group);
        bool bad = false;
        for (std::int64_t i = begin; i < end; ++i) bad |= static_cast<std::uint32_t>(indices[i]) >= bound;
        if (!bad) continue;
        for (std::int64_t i = begin; i < end; ++i) {
            if (static_cast<std::uint32_t>(indices[i]) >= bound) return i;
        }
    }
    return count;
}

void scatter_add(float* dense, const std::int32_t* indices, const float* values, std::int64_t count, float scale) {
    constexpr std::int64_t ahead = 16;  // places to fetch before they are needed
    for (std::int64_t i = 0; i < count; ++i) {
        if (i + ahead < count) __builtin_prefetch(dense + indices[i + ahead], 1);
        dense[indices[i]] += scale * values[i];
    }
}

void pack_signs(const float* x, std::int64_t size, std::uint8_t* packed, int threads) {
    const SelectionKernels& kernels = selection_kernels();
    for_each_share(size, 64, threads, [&](Range range) {
        kernels.pack_signs(x + range.begin, range.end - range.begin, packed + range.begin / 8);
    });
}

void unpack_majority(const std::uint8_t* packed, std::int64_t rows, std::int64_t stride, std::int64_t size, float scale,
                     float* y, int threads) {
    const SelectionKernels& kernels = selection_kernels();
    for_each_share(size, 64, threads, [&](Range range) {
        kernels.majority(packed + range.begin / 8, rows, stride, range.end - range.begin, scale, y + range.begin);
    });
}

void quantise_stochastic(const float* x, std::int64_t size, int bits, std::uint64_t seed, std::uint8_t* codes,
                         float* steps, int threads) {
    const SelectionKernels& kernels = selection_kernels();
    const int levels = code_levels(bits);
    for_each_share(size, quantise_block, threads, [&](Range range) {
        for (std::int64_t begin = range.begin; begin < range.end; begin += quantise_block) {
            const std::int64_t count = std::min(quantise_block, range.end - begin);
            const float largest = std::bit_cast<float>(kernels.largest(x + begin, count));
            const bool finite = std::isfinite(largest);
            std::int8_t block[quantise_block] = {};
            const float step = finite ? code_step(largest, levels) : std::numeric_limits<float>::quiet_NaN();
            if (finite && step > 0.0f) kernels.quantise(x + begin, count, seed, begin, step, levels, block);
            steps[begin / quantise_block] = step;
            std::uint8_t* packed = codes + begin * bits / 8;
            if (bits == 8) std::memcpy(packed, block, static_cast<std::size_t>(count));
            if (bits == 4) pack_codes<4>(block, count, packed);
            if (bits == 2) pack_codes<2>(block, count, packed);
        }
    });
}

void dequantise_add(const std::uint8_t* codes, const float* steps, std::int64_t size, int bits, float scale, float* y,
                    int threads) {
    const SelectionKernels& kernels = selection_kernels();
    for_each_share(size, quantise_block, threads, [&](Range range) {
        for (std::int64_t begin = range.begin; begin < range.end; begin += quantise_block) {
            const std::int64_t count = std::min(quantise_block, range.end - begin);
            std::int8_t block[quantise_block];
            const std::uint8_t* packed = codes + begin * bits / 8;
            if (bits == 8) std::memcpy(block, packed, static_cast<std::size_t>(count));
            if (bits == 4) unpack_codes<4>(packed, count, block);
            if (bits == 2) unpack_codes<2>(packed, count, block);
            kernels.dequantise_add(block, count, scale * steps[begin / quantise_block], y + begin);
        }
    });
}

}  // namespace taut
