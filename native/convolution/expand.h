// Expands a block of vector weights; for every instruction set that has nothing better.
#pragma once

#include "convolution/convolution.h"

namespace taut {
namespace {

inline void expand_portably(const VectorBlock& block) {
    const auto* codes = reinterpret_cast<const std::uint8_t*>(block.packed);
    const auto* scales = codes + block.taps * block.vectors * vector_code_bytes;
    std::int8_t* out = block.out;
    for (std::int64_t tap = 0; tap < block.taps; ++tap) {
        for (std::int64_t vector = 0; vector < block.vectors; ++vector) {
            std::uint8_t factor[group_bytes];
            for (int i = 0; i < group_bytes; ++i) {
                const int channel = i / static_cast<int>(group_depth);
                factor[i] = channel < 8 ? scales[channel] & 15u : scales[channel - 8] >> 4;
            }
            for (int line = 0; line < 2; ++line) {
                const std::uint8_t* nibbles = codes + line * group_bytes;
                std::int8_t* low = out + 2 * line * group_bytes;
                for (int i = 0; i < group_bytes; ++i) {
                    low[i] = static_cast<std::int8_t>(((nibbles[i] & 15) - 8) * factor[i]);
                    low[i + group_bytes] = static_cast<std::int8_t>(((nibbles[i] >> 4) - 8) * factor[i]);
                }
            }
            codes += vector_code_bytes;
            scales += vector_scale_bytes;
            out += vector_groups * group_bytes;
        }
        out -= (block.vectors * vector_groups - block.groups) * group_bytes;
    }
}

}  // namespace
}  // namespace taut
