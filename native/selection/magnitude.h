// Magnitudes as integers.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace taut {

inline std::uint32_t magnitude_bits(float value) { return std::bit_cast<std::uint32_t>(value) & 0x7fffffff; }

// The least magnitude bits above a threshold, which is not negative; above infinity is NaN.
inline std::uint32_t bits_above(double threshold) {
    float below = static_cast<float>(threshold);
    // A float is above the threshold exactly if it is above the largest float that is not.
    if (static_cast<double>(below) > threshold) below = std::nextafter(below, 0.0f);
    return magnitude_bits(below) + 1;
}

inline constexpr std::uint32_t infinite_bits = 0x7f800000;

}  // namespace taut
