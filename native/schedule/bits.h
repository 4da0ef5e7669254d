// Sets of operators as words of bits.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace taut::schedule {

template <int W>
struct Bits {
    std::array<std::uint64_t, W> words{};

    void add(int i) { words[static_cast<std::size_t>(i) / 64] |= std::uint64_t{1} << (i % 64); }
    bool has(int i) const { return words[static_cast<std::size_t>(i) / 64] >> (i % 64) & 1; }

    int size() const {
        int count = 0;
        for (const std::uint64_t word : words) count += std::popcount(word);
        return count;
    }

    bool meets(const Bits& other) const {
        std::uint64_t common = 0;
        for (std::size_t i = 0; i < W; ++i) common |= words[i] & other.words[i];
        return common != 0;
    }

    Bits operator&(const Bits& other) const { return join(other, [](auto a, auto b) { return a & b; }); }
    Bits operator|(const Bits& other) const { return join(other, [](auto a, auto b) { return a | b; }); }
    Bits without(const Bits& other) const { return join(other, [](auto a, auto b) { return a & ~b; }); }
    bool operator==(const Bits&) const = default;

    std::size_t hash() const {
        std::uint64_t value = 0;
        for (const std::uint64_t word : words) {
            value = (value ^ word) * 0x9e3779b97f4a7c15;
            value ^= value >> 32;
        }
        return value;
    }

    template <class Visit>
    void each(Visit&& visit) const {
        for (std::size_t i = 0; i < W; ++i) {
            for (std::uint64_t left = words[i]; left != 0; left &= left - 1) {
                visit(static_cast<int>(64 * i) + std::countr_zero(left));
            }
        }
    }

private:
    template <class Operation>
    Bits join(const Bits& other, Operation operation) const {
        Bits made;
        for (std::size_t i = 0; i < W; ++i) made.words[i] = operation(words[i], other.words[i]);
        return made;
    }
};

}  // namespace taut::schedule
