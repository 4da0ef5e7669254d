// The part of the kernel after the integer sums: scale, bias, activation, conversion. One text for every instruction
// set: `V` supplies the vector operations, and as each is a single correctly rounded IEEE operation, results are equal
// bit for bit. Included once per translation unit; everything depends on V, so nothing is shared between them.
#pragma once

#include "int8_linear/int8_linear.h"

namespace taut {

// erf(x / sqrt(2)) / 2 for |x| <= 5.2 as x times a polynomial in u = 2 (x / 5.2)^2 - 1; minimax fit of our own, absolute
// error below 1e-7. Beyond 5.2 the clamped polynomial gives exactly +-0.5.
inline constexpr float gelu_limit = 5.2f;
inline constexpr float gelu_scale = 0.0739645f;
inline constexpr float gelu_coefficients[14] = {
    -0x1.f8a4b2p-12f, 0x1.4c8814p-10f, -0x1.403774p-10f, 0x1.d7e4e6p-10f, -0x1.39da0ap-8f, 0x1.187e20p-7f,  -0x1.99c4c0p-7f,
    0x1.262bdcp-6f,   -0x1.951264p-6f, 0x1.060fcep-5f,   -0x1.471ae8p-5f, 0x1.99cd06p-5f,  -0x1.157a62p-4f, 0x1.166cf8p-3f,
};

// V::max and V::min return their second argument when either is NaN, so that NaN passes through.
template <class V>
inline typename V::Float gelu(typename V::Float x) {
    const auto clamped = V::max(V::set(-gelu_limit), V::min(V::set(gelu_limit), x));
    const auto u = V::fma(V::mul(clamped, clamped), V::set(gelu_scale), V::set(-1.0f));
    auto sum = V::set(gelu_coefficients[0]);
    for (int i = 1; i < 14; ++i) sum = V::fma(sum, u, V::set(gelu_coefficients[i]));
    const auto half_erf = V::max(V::set(-0.5f), V::min(V::set(0.5f), V::mul(clamped, sum)));
    return V::mul(x, V::add(V::set(0.5f), half_erf));
}

// Turns V::width integer sums of each row of a tile into outputs; only `count` of them when not `full`.
template <class V, Activation activation, Element element, bool full>
inline void finish_column(const Int8LinearTile& tile, int channel, int count, const std::int32_t* sums, int stride) {
    const auto load = [count](const float* p) { return full ? V::load(p) : V::load_part(p, count); };
    const auto scale = load(tile.scales + channel);
    const auto bias = tile.bias == nullptr ? V::set(0.0f) : load(tile.bias + channel);
    std::uint8_t* y = tile.y;
    for (int row = 0; row < tile.rows; ++row, sums += stride, y += tile.y_stride) {
        auto value = V::fma(V::from_int(sums), V::mul(V::set(tile.row_scales[row]), scale), bias);
        if constexpr (activation == Activation::relu) value = V::max(V::set(0.0f), value);
        if constexpr (activation == Activation::gelu) value = gelu<V>(value);
        if constexpr (element == Element::bfloat16) {
            V::store_bfloat16(reinterpret_cast<std::uint16_t*>(y) + channel, count, value);
        } else if constexpr (full) {
            V::store(reinterpret_cast<float*>(y) + channel, value);
        } else {
            V::store_part(reinterpret_cast<float*>(y) + channel, count, value);
        }
    }
}

template <class V, Activation activation, Element element>
inline void finish_columns(const Int8LinearTile& tile, const std::int32_t* sums, int stride) {
    int channel = 0;
    for (; channel + V::width <= tile.channels; channel += V::width) {
        finish_column<V, activation, element, true>(tile, channel, V::width, sums + channel, stride);
    }
    if (channel == tile.channels) return;
    finish_column<V, activation, element, false>(tile, channel, tile.channels - channel, sums + channel, stride);
}

// Turns the sums of a tile, rows of `stride`, into outputs. They may be read up to the next multiple of V::width.
template <class V>
[[gnu::noinline]] void finish_tile(const Int8LinearTile& tile, const std::int32_t* sums, int stride) {
    const auto choose = [&]<Element element>() {
        switch (tile.activation) {
            case Activation::none: return finish_columns<V, Activation::none, element>(tile, sums, stride);
            case Activation::relu: return finish_columns<V, Activation::relu, element>(tile, sums, stride);
            case Activation::gelu: return finish_columns<V, Activation::gelu, element>(tile, sums, stride);
        }
    };
    if (tile.element == Element::float32) return choose.template operator()<Element::float32>();
    choose.template operator()<Element::bfloat16>();
}

// Scale of a row whose largest magnitude has the bits `magnitude` and shall become `most`, and its reciprocal for
// quantising. A row holding NaN or infinity gets scale NaN, so that its outputs are NaN; a row below 2^-100 counts as
// zero, because the reciprocal of its scale could overflow.
struct RowScale {
    float scale;
    float inverse;
};

template <class V>
inline RowScale row_scale(std::uint32_t magnitude, float most = 127.0f) {
    constexpr std::uint32_t infinity_bits = 0x7f800000u;
    constexpr std::uint32_t smallest_bits = (127u - 100u) << 23;
    if (magnitude >= infinity_bits) return {__builtin_nanf(""), 0.0f};
    if (magnitude < smallest_bits) return {0.0f, 0.0f};
    const float amax = __builtin_bit_cast(float, magnitude);
    return {amax / most, most / amax};
}

}  // namespace taut
