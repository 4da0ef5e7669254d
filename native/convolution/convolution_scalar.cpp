// Portable implementation, and the reference for the others.
#include "convolution/expand.h"
#include "int8_linear/vector_scalar.h"

namespace taut {
namespace {

void tile(const ConvolutionTile& tile) {
    std::int32_t sums[block_channels] = {};
    const std::int8_t* weights = tile.linear.packed;
    for (std::int64_t run = 0; run < tile.run_count; ++run) {
        const auto* x = reinterpret_cast<const std::int8_t*>(tile.pixels[0] + tile.runs[run]);
        for (std::int64_t group = 0; group < tile.run_bytes; group += group_depth, weights += group_bytes) {
            for (int channel = 0; channel < block_channels; ++channel) {
                for (int k = 0; k < group_depth; ++k) {
                    sums[channel] += x[group + k] * weights[channel * group_depth + k];
                }
            }
        }
    }
    finish_tile<Vector>(tile.linear, sums, block_channels);
}

}  // namespace

constinit const ConvolutionKernels convolution_scalar{{0, 1}, 1, 0, measure, quantise_values, expand_portably, tile};

}  // namespace taut
