#include "selection/value_code.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

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
    using Rest = std::conditional_t<sizeof(Word) == 2, std::uint8_t, std::uint32_t>;
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

template <class Word>
Word load(const std::uint8_t* from, std::int64_t i, std::int64_t stride = sizeof(Word)) {
    Word value;
    std::memcpy(&value, from + i * stride, sizeof value);
    return value;
}

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

constexpr std::int64_t lanes = 8;  // bytes of a word

// How many of a block's exponents are smaller than each.
class Distribution {
   public:
    Distribution(const std::uint8_t* block, std::int64_t count) {
        std::uint8_t least = exponents - 1, most = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            least = std::min(least, block[i]);
            most = std::max(most, block[i]);
        }
        lowest = least;
        highest = most;
        // Equal neighbours would wait for each other's counter.
        std::uint16_t counters[copies][exponents];
        for (auto& one : counters) std::fill(one + lowest, one + highest + 1, std::uint16_t{0});
        std::int64_t i = 0;
        for (; i + copies <= count; i += copies) {
            for (int copy = 0; copy < copies; ++copy) ++counters[copy][block[i + copy]];
        }
        for (; i < count; ++i) ++counters[0][block[i]];
        below_[lowest] = 0;
        for (int e = lowest; e <= highest; ++e) {
            below_[e + 1] = below_[e];
            for (const auto& one : counters) below_[e + 1] += one[e];
        }
    }

    std::int64_t between(int first, int end) const { return below_[end] - below_[first]; }

    int lowest, highest;

   private:
    static constexpr int copies = 8;
    std::int32_t below_[exponents + 1];
};

// The window with the shortest code.
Window choose_window(const Distribution& found, std::int64_t count) {
    Window best{0, found.lowest};
    std::int64_t least = count * 8;
    for (int bits = 1; bits <= most_bits; ++bits) {
        const int size = (1 << bits) - 1;
        for (int first = found.lowest; first <= found.highest; ++first) {
            const int end = std::min(first + size, found.highest + 1);
            const std::int64_t cost = count * bits + 8 * (count - found.between(first, end));
            if (cost < least) {
                least = cost;
                best = {bits, first};
            }
            if (end > found.highest) break;
        }
    }
    return best;
}

// Marks the bytes of a word that are 0, none of which is above 127.
std::uint64_t zero_bytes(std::uint64_t word) {
    constexpr std::uint64_t tops = 0x8080808080808080;
    return (tops - word) & tops;
}

// Calls body(i) for each place i of a block that is 0. Beyond the places are `lanes` bytes.
template <class Body>
bool for_each_zero(const std::uint8_t* places, std::int64_t count, const Body& body) {
    for (std::int64_t i = 0; i < count; i += lanes) {
        for (std::uint64_t zeros = zero_bytes(load64(places + i)); zeros != 0; zeros &= zeros - 1) {
            const std::int64_t at = i + std::countr_zero(zeros) / 8;
            if (at < count && !body(at)) return false;
        }
    }
    return true;
}

template <class Word>
std::uint8_t* encode_block(const std::uint8_t* values, std::int64_t count, std::uint8_t* code) {
    using Values = Format<Word>;
    std::uint8_t found[value_block];
    for (std::int64_t i = 0; i < count; ++i) found[i] = static_cast<std::uint8_t>(Values::exponent(load<Word>(values, i)));
    const Window window = choose_window(Distribution(found, count), count);
    code[0] = static_cast<std::uint8_t>(window.bits);
    code[1] = static_cast<std::uint8_t>(window.first);
    std::uint8_t* at = code + block_header;
    // The last byte of a wider store is one that follows: each value takes a bit or a byte behind the rests.
    for (std::int64_t i = 0; i < count; ++i) {
        const auto rest = static_cast<typename Values::Rest>(Values::rest(load<Word>(values, i)));
        std::memcpy(at + i * Values::rest_bytes, &rest, sizeof rest);
    }
    at += count * Values::rest_bytes;
    if (window.bits == 0) {
        std::memcpy(at, found, static_cast<std::size_t>(count));
        return at + count;
    }
    std::uint8_t places[value_block + lanes] = {};
    for (std::int64_t i = 0; i < count; ++i) places[i] = static_cast<std::uint8_t>(window.shorten(found[i]));
    std::uint8_t row[value_block * most_bits / 8 + bit_padding];
    for (std::int64_t i = 0; i < count; i += lanes) {
        store64(row + i / lanes * window.bits, pack_lanes8(load64(places + i), window.bits));
    }
    const std::int64_t bytes = bytes_of_bits(count * window.bits);
    std::memcpy(at, row, static_cast<std::size_t>(bytes));
    at += bytes;
    for_each_zero(places, count, [&](std::int64_t i) {
        *at++ = found[i];
        return true;
    });
    return at;
}

template <class Word>
ValueFault decode_block(const std::uint8_t*& at, const std::uint8_t* end, std::int64_t count, std::uint8_t* values) {
    using Values = Format<Word>;
    if (end - at < block_header) return ValueFault::truncated;
    const Window window{at[0], at[1]};
    if (window.bits > most_bits) return ValueFault::width;
    const std::uint8_t* rests = at + block_header;
    const std::int64_t bytes = bytes_of_bits(count * window.bits);
    if (end - at < block_header + count * Values::rest_bytes + bytes) return ValueFault::truncated;
    at = rests + count * Values::rest_bytes;
    std::uint8_t found[value_block];
    if (window.bits == 0) {
        if (end - at < count) return ValueFault::truncated;
        std::memcpy(found, at, static_cast<std::size_t>(count));
        at += count;
    } else {
        std::uint8_t row[value_block * most_bits / 8 + bit_padding];
        std::memcpy(row, at, static_cast<std::size_t>(bytes));
        store64(row + bytes, 0);
        at += bytes;
        std::uint8_t places[value_block + lanes];
        for (std::int64_t i = 0; i < count; i += lanes) {
            store64(places + i, unpack_lanes8(load64(row + i / lanes * window.bits), window.bits));
        }
        std::uint8_t highest = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            highest = std::max(highest, places[i]);
            found[i] = static_cast<std::uint8_t>(window.first + places[i] - 1);
        }
        if (window.first + highest > exponents) return ValueFault::exponent;
        const bool enough = for_each_zero(places, count, [&](std::int64_t i) {
            if (at == end) return false;
            found[i] = *at++;
            return true;
        });
        if (!enough) return ValueFault::truncated;
    }
    // A wider load ends with a byte that follows, see above.
    for (std::int64_t i = 0; i < count; ++i) {
        const Word value = Values::join(load<typename Values::Rest>(rests, i, Values::rest_bytes), found[i]);
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
