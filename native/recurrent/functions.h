// Exponential, sigmoid and hyperbolic tangent, one text for every instruction set (see int8_linear/epilogue.h). NaN
// passes through.
#pragma once

namespace taut {

// (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2; minimax fit of our own, relative error of e^r - 1 below 2e-8.
inline constexpr float exponential_coefficients[5] = {0x1.6bebcap-10f, 0x1.1228e6p-7f, 0x1.555676p-5f, 0x1.5554aep-3f,
                                                      0x1.fffffep-2f};

// e^x - 1 = (remainder + 1) * power - 1, with |x| <= 87.
template <class V>
struct Exponential {
    typename V::Float remainder;
    typename V::Float power;
};

template <class V>
inline Exponential<V> exponential(typename V::Float x) {
    const auto shift = V::set(0x1.8p23f);
    const auto shifted = V::fma(x, V::set(0x1.715476p0f), shift);
    const auto n = V::add(shifted, V::set(-0x1.8p23f));
    // ln(2) in two parts, the first short enough for n times it to be exact.
    const auto r = V::fma(n, V::set(0x1.05c61p-29f), V::fma(n, V::set(-0x1.62e43p-1f), x));
    auto sum = V::set(exponential_coefficients[0]);
    for (int i = 1; i < 5; ++i) sum = V::fma(sum, r, V::set(exponential_coefficients[i]));
    return {V::fma(V::mul(r, r), sum, r), V::power_of_two(shifted)};
}

// V::max and V::min return their second argument when either is NaN.
template <class V>
inline typename V::Float clamp(typename V::Float x, float limit) {
    return V::max(V::set(-limit), V::min(V::set(limit), x));
}

template <class V>
inline typename V::Float sigmoid(typename V::Float x) {
    const auto e = exponential<V>(clamp<V>(V::mul(x, V::set(-1.0f)), 87.0f));
    return V::div(V::set(1.0f), V::add(V::fma(e.remainder, e.power, e.power), V::set(1.0f)));
}

template <class V>
inline typename V::Float hyperbolic_tangent(typename V::Float x) {
    // Beyond 10 the quotient rounds to one.
    const auto e = exponential<V>(clamp<V>(V::add(x, x), 20.0f));
    const auto minus_one = V::fma(e.remainder, e.power, V::add(e.power, V::set(-1.0f)));
    return V::div(minus_one, V::add(minus_one, V::set(2.0f)));
}

}  // namespace taut
