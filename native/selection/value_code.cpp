#include "selection/value_code.h"

#include <algorithm>
#include <cstring>

#include "selection/bits.h"

namespace taut {
namespace {

constexpr int most_bits = 4;
constexpr int exponents = 256;
constexpr std::int64_t block_header = 2;

// A float as an integer of its width.
template <class Word>
struct Format {
    static constexpr int mantissa_bits = 8 * sizeof(Word) - 9;
    static constexpr std::int64_t rest_bytes = sizeof(Word) - 1;
    static constexpr Word mantissa_mask = static_cast<Word>((Word{1} << mantissa_bits) - 1);

    static int exponent(Word value) { return static_cast<int>(value >> mantissa_bits & (exponents - 1)); }
    // The sign above the mantissa.
    static std::uint32_t rest(Word value) {
        return (value & mantissa_mask) | static_cast<std::uint32_t>(value >> (mantissa_bits + 8)) << mantissa_bits;
    }
    static Word join(std::uint32_t rest, int exponent) {
        const std::uint32_t sign = rest >> mantissa_bits & 1;
        return static_cast<Word>((rest & mantissa_mask) | static_cast<std::uint32_t>(exponent) << mantissa_bits |
                                 sign << (mantissa_bits + 8));
    }
};

// The exponents that have a short form: `first` and those above it.
struct Window {
    int bits;
    int first;

    // 0 for an exponent outside.
    int shorten(int exponent) const {
        const int place = exponent - first + 1;
        return place > 0 && place < 1 << bits ? place : 0;
    }
};

// The window with the shortest code.
Window choose_window(const std::uint8_t* block, std::int64_t count) {
    std::uint32_t below[exponents + 1] = {};  // how many exponents are smaller
    for (std::int64_t i = 0; i < count; ++i) ++below[block[i] + 1];
    const auto [lowest, highest] = std::minmax_element(block, block + count);
    for (int e = *lowest; e <= *highest; ++e) below[e + 1] += below[e];
    Window best{0, *lowest};
    std::int64_t least = count * 8;
    for (int bits = 1; bits <= most_bits; ++bits) {
        const int size = (1 << bits) - 1;
        for (int first = *lowest; first <= *highest; ++first) {
            const int end = std::min(first + size, *highest + 1);
            const std::int64_t cost = count * bits + 8 * (count - below[end] + below[first]);
            if (cost < least) {
                least = cost;
                best = {bits, first};
            }
            if (end > *highest) break;
        }
    }
    return best;
}

template <class Word>
std::uint8_t* encode_block(const std::uint8_t* values, std::int64_t count, std::uint8_t* code) {
    using Values = Format<Word>;
    std::uint8_t found[value_block];
    std::uint8_t* at = code + block_header;
    for (std::int64_t i = 0; i < count; ++i) {
        Word value;
        std::memcpy(&value, values + i * sizeof(Word), sizeof value);
        found[i] = static_cast<std::uint8_t>(Values::exponent(value));
        const std::uint32_t rest = Values::rest(value);
        for (int byte = 0; byte < Values::rest_bytes; ++byte) *at++ = static_cast<std::uint8_t>(rest >> 8 * byte);
    }
    const Window window = choose_window(found, count);
    code[0] = static_cast<std::uint8_t>(window.bits);
    code[1] = static_cast<std::uint8_t>(window.first);
    std::uint8_t shortened[bytes_of_bits(value_block * most_bits) + bit_padding];
    std::uint8_t others[value_block];
    std::int64_t other_count = 0;
    BitWriter writer(shortened);
    for (std::int64_t i = 0; i < count; ++i) {
        const int place = window.shorten(found[i]);
        writer.put(static_cast<std::uint64_t>(place), window.bits);
        others[other_count] = found[i];
        other_count += place == 0 ? 1 : 0;
    }
    const std::int64_t bytes = bytes_of_bits(count * window.bits);
    std::memcpy(at, shortened, static_cast<std::size_t>(bytes));
    std::memcpy(at + bytes, others, static_cast<std::size_t>(other_count));
    return at + bytes + other_count;
}

template <class Word>
ValueFault decode_block(const std::uint8_t*& at, const std::uint8_t* end, std::int64_t count, std::uint8_t* values) {
    using Values = Format<Word>;
    if (end - at < block_header) return ValueFault::truncated;
    const Window window{at[0], at[1]};
    at += block_header;
    if (window.bits > most_bits) return ValueFault::width;
    const std::int64_t bytes = bytes_of_bits(count * window.bits);
    if (end - at < count * Values::rest_bytes + bytes) return ValueFault::truncated;
    const std::uint8_t* rests = at;
    at += count * Values::rest_bytes;
    std::uint8_t shortened[bytes_of_bits(value_block * most_bits) + bit_padding] = {};
    std::memcpy(shortened, at, static_cast<std::size_t>(bytes));
    at += bytes;
    BitReader reader(shortened);
    for (std::int64_t i = 0; i < count; ++i) {
        std::uint32_t rest = 0;
        for (int byte = 0; byte < Values::rest_bytes; ++byte) rest |= static_cast<std::uint32_t>(*rests++) << 8 * byte;
        const auto place = static_cast<int>(reader.get(window.bits));
        if (place == 0 && at == end) return ValueFault::truncated;
        const int exponent = place == 0 ? *at++ : window.first + place - 1;
        if (exponent >= exponents) return ValueFault::exponent;
        const Word value = Values::join(rest, exponent);
        std::memcpy(values + i * sizeof(Word), &value, sizeof value);
    }
    return ValueFault::none;
}

// In the widths' integers.
template <class Body>
auto with_word(int width, const Body& body) {
    return width == 2 ? body(std::uint16_t{}) : body(std::uint32_t{});
}

}  // namespace

// At worst no exponent is shortened.
std::int64_t value_code_bound(std::int64_t count, int width) {
    return (count + value_block - 1) / value_block * block_header + count * width;
}

std::int64_t encode_values(const std::uint8_t* values, std::int64_t count, int width, std::uint8_t* code) {
    return with_word(width, [&](auto word) {
        std::uint8_t* at = code;
        for (std::int64_t begin = 0; begin < count; begin += value_block) {
            at = encode_block<decltype(word)>(values + begin * width, std::min(value_block, count - begin), at);
        }
        return at - code;
    });
}

ValueFault decode_values(const std::uint8_t* code, std::int64_t bytes, std::int64_t count, int width,
                         std::uint8_t* values) {
    return with_word(width, [&](auto word) {
        const std::uint8_t* at = code;
        const std::uint8_t* end = code + bytes;
        for (std::int64_t begin = 0; begin < count; begin += value_block) {
            const std::int64_t size = std::min(value_block, count - begin);
            const ValueFault fault = decode_block<decltype(word)>(at, end, size, values + begin * width);
            if (fault != ValueFault::none) return fault;
        }
        return at == end ? ValueFault::none : ValueFault::trailing;
    });
}

}  // namespace taut
