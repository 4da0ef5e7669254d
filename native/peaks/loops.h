// The loops of the peak measurement, once for every instruction set; `V` supplies the vector operations.
#pragma once

#include "peaks/peaks.h"

namespace taut {

// Independent chains: enough to cover the latency of a multiply-add on every pipe, few enough for 16 registers.
inline constexpr int chains = 12;

// Keeps the compiler from knowing, or dropping, a value.
template <class T>
inline void opaque(T& value) {
    asm volatile("" : "+m"(value));
}

template <class V>
void float32_loop(std::int64_t rounds) {
    auto factor = V::set(0.5f);
    auto term = V::set(0.25f);
    opaque(factor);
    opaque(term);
    typename V::Float sums[chains];
    for (auto& sum : sums) sum = term;
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) sums[i] = V::multiply_add(sums[i], factor, term);
        asm volatile("");
    }
    for (auto& sum : sums) opaque(sum);
}

template <class V>
void int8_loop(std::int64_t rounds) {
    auto a = V::integers(3);
    auto b = V::integers(5);
    opaque(a);
    opaque(b);
    decltype(a) sums[chains];
    for (auto& sum : sums) sum = V::integers(0);
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) sums[i] = V::dot(sums[i], a, b);
        asm volatile("");
    }
    for (auto& sum : sums) opaque(sum);
}

template <class V>
void read_loop(const std::uint8_t* data, std::size_t bytes) {
    constexpr int ways = 8;
    decltype(V::integers(0)) sums[ways];
    for (auto& sum : sums) sum = V::integers(0);
    for (std::size_t offset = 0; offset < bytes; offset += ways * sizeof(sums[0])) {
#pragma GCC unroll 8
        for (int i = 0; i < ways; ++i) sums[i] = V::exclusive_or(sums[i], data + offset + i * sizeof(sums[0]));
    }
    for (auto& sum : sums) opaque(sum);
}

template <class V>
constexpr PeakLoops peak_loops() {
    return {{float32_loop<V>, 2.0 * chains * V::floats}, {int8_loop<V>, 2.0 * chains * V::dot_products}, read_loop<V>};
}

}  // namespace taut
