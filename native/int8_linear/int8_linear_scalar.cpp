// Portable implementation, and the reference for the others.
#include "int8_linear/vector_scalar.h"

namespace taut {
namespace {

float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale scale = measure(x, element, depth);
    std::memset(out, 0, groups * group_depth);
    if (scale.inverse != 0.0f) quantise_values(x, element, depth, scale.inverse, out);
    return scale.scale;
}

void tile(const Int8LinearTile& tile) {
    const auto* x = reinterpret_cast<const std::int8_t*>(tile.x);
    std::int32_t sums[block_channels] = {};
    for (std::int64_t group = 0; group < tile.groups; ++group) {
        const std::int8_t* weights = tile.packed + group * group_bytes;
        for (int channel = 0; channel < block_channels; ++channel) {
            for (int k = 0; k < group_depth; ++k) {
                sums[channel] += x[group * group_depth + k] * weights[channel * group_depth + k];
            }
        }
    }
    finish_tile<Vector>(tile, sums, block_channels);
}

}  // namespace

constinit const Int8LinearKernels int8_linear_scalar{1, 1, 4, quantise, tile};

}  // namespace taut
