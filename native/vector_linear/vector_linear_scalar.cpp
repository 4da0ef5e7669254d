// Portable implementation, and the reference for the others.
#include "int8_linear/vector_scalar.h"
#include "vector_linear/vector_linear.h"

namespace taut {
namespace {

// One way to code a vector: its integers (code times scale), and their squared error in units of gamma.
struct Candidate {
    float integers[vector_depth] = {};
    float error = 0.0f;

    Candidate(const float* values, float inverse, float scale) {
        const float factor = inverse * (1.0f / scale);
        float errors[vector_depth];
        for (std::int64_t k = 0; k < vector_depth; ++k) {
            const float code = Vector::max(-largest_code, Vector::min(largest_code, nearbyintf(values[k] * factor)));
            integers[k] = code * scale;
            const float difference = values[k] * inverse - integers[k];
            errors[k] = difference * difference;
        }
        // The order of the sum is part of the definition.
        for (std::int64_t half = vector_depth / 2; half > 0; half /= 2) {
            for (std::int64_t k = 0; k < half; ++k) errors[k] += errors[k + half];
        }
        error = errors[0];
    }
};

float quantise(const void* x, Element element, std::int64_t depth, std::int64_t groups, std::uint8_t* out) {
    const RowScale row = row_scale<Vector>(largest_magnitude(x, element, depth), largest_folded);
    std::memset(out, 0, groups * group_depth);
    if (row.inverse == 0.0f) return row.scale;
    for (std::int64_t first = 0; first < depth; first += vector_depth) {
        const std::int64_t count = first + vector_depth < depth ? vector_depth : depth - first;
        float values[vector_depth] = {};
        float largest = 0.0f;
        for (std::int64_t k = 0; k < count; ++k) {
            values[k] = __builtin_bit_cast(float, load_bits(x, element, first + k));
            largest = Vector::max(largest, fabsf(values[k]));
        }
        const float steps = largest * row.inverse * (1.0f / largest_code);
        const float high = Vector::max(1.0f, Vector::min(15.0f, ceilf(steps)));
        const Candidate above(values, row.inverse, high);
        const Candidate below(values, row.inverse, Vector::max(1.0f, high - 1.0f));
        const Candidate& closest = below.error < above.error ? below : above;
        for (std::int64_t k = 0; k < count; ++k) {
            out[first + k] = static_cast<std::uint8_t>(static_cast<std::int8_t>(closest.integers[k]));
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
