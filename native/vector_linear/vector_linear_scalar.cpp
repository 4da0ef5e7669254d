// Portable implementation, and the reference for the others.
#include "int8_linear/vector_scalar.h"
#include "vector_linear/vector_linear.h"

namespace taut {
namespace {

float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale row = row_scale<Vector>(largest_magnitude(x, element, depth), largest_folded);
    std::memset(out, 0, groups * group_depth);
    if (row.inverse == 0.0f) return row.scale;
    for (std::int64_t first = 0; first < depth; first += vector_depth) {
        const std::int64_t count = first + vector_depth < depth ? vector_depth : depth - first;
        const std::uint32_t magnitude = largest_magnitude(value_at(x, element, first), element, count);
        if (magnitude == 0) continue;
        const float largest = __builtin_bit_cast(float, magnitude) * row.inverse;
        const float scale = Vector::max(1.0f, Vector::min(15.0f, ceilf(largest * (1.0f / largest_code))));
        const float factor = row.inverse * (1.0f / scale);
        for (std::int64_t k = first; k < first + count; ++k) {
            const float code = nearbyintf(__builtin_bit_cast(float, load_bits(x, element, k)) * factor);
            const float clamped = Vector::max(-largest_code, Vector::min(largest_code, code));
            out[k] = static_cast<std::uint8_t>(static_cast<std::int8_t>(clamped * scale));
        }
    }
    return row.scale;
}

void expand(const std::int8_t* block, std::int64_t groups, std::int8_t* out) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(block);
    const std::uint8_t* scales = bytes;
    for (std::int64_t vector = 0; vector < groups / vector_groups; ++vector) {
        const std::int64_t place = vector % span_vectors;
        if (place == 0) {
            scales = bytes;
            bytes += scale_bytes;
        }
        for (std::int64_t i = 0; i < vector_bytes; ++i, ++bytes) {
            const std::int64_t lane = i % group_bytes;
            const int scale = scales[lane / group_depth * group_depth + place / 2] >> (place % 2 * 4) & 15;
            std::int8_t* line = out + (vector * vector_groups + i / group_bytes * 2) * group_bytes + lane;
            line[0] = static_cast<std::int8_t>(((*bytes & 15) - 8) * scale);
            line[group_bytes] = static_cast<std::int8_t>(((*bytes >> 4) - 8) * scale);
        }
    }
    std::memcpy(out + groups * group_bytes, bytes, trailer_groups * group_bytes);
}

}  // namespace

Int8LinearKernels vector_linear_scalar(std::int64_t, Inputs inputs) {
    Int8LinearKernels kernels = int8_linear_scalar;
    if (inputs == Inputs::vsq4) kernels.quantise = quantise;
    kernels.expand = expand;
    return kernels;
}

}  // namespace taut
