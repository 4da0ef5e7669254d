// Bits in a row of bytes, from the lowest of the first byte on.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace taut {

// Words are rows of lanes, the lowest byte first.
static_assert(std::endian::native == std::endian::little);

inline std::uint64_t load64(const std::uint8_t* from) {
    std::uint64_t value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline void store64(std::uint8_t* to, std::uint64_t value) { std::memcpy(to, &value, sizeof value); }

// Bytes that may be read or written beyond the end.
inline constexpr std::int64_t bit_padding = 8;

inline constexpr std::int64_t bytes_of_bits(std::int64_t bits) { return (bits + 7) / 8; }

// Takes at most 56 bits at once.
class BitWriter {
   public:
    explicit BitWriter(std::uint8_t* to) : to_(to) {}

    void put(std::uint64_t bits, int count) {
        word_ |= bits << filled_;
        filled_ += count;
        store64(to_, word_);
        to_ += filled_ / 8;
        word_ >>= filled_ / 8 * 8;
        filled_ %= 8;
    }

    std::uint8_t* finish() const { return to_ + (filled_ > 0 ? 1 : 0); }

   private:
    std::uint8_t* to_;
    std::uint64_t word_ = 0;
    int filled_ = 0;
};

// The low bits of the four 16-bit lanes of a word, at most 16 of each, in a row, and back. Nothing is above them in a lane;
// what is above the row does not count.
inline std::uint64_t pack_lanes16(std::uint64_t lanes, int bits) {
    constexpr std::uint64_t even = 0x0000ffff0000ffff;
    const std::uint64_t pairs = (lanes & even) | (lanes >> (16 - bits) & even << bits);
    return (pairs & 0xffffffff) | pairs >> 32 << 2 * bits;
}

inline std::uint64_t unpack_lanes16(std::uint64_t row, int bits) {
    const std::uint64_t two = (std::uint64_t{1} << 2 * bits) - 1, one = (std::uint64_t{1} << bits) - 1;
    const std::uint64_t pairs = (row & two) | (row >> 2 * bits & two) << 32;
    return (pairs & one * 0x0000000100000001) | (pairs << (16 - bits) & one * 0x0001000000010000);
}

// As the above, of eight bytes, at most 8 bits of each.
inline std::uint64_t pack_lanes8(std::uint64_t lanes, int bits) {
    constexpr std::uint64_t even = 0x00ff00ff00ff00ff;
    return pack_lanes16((lanes & even) | (lanes >> (8 - bits) & even << bits), 2 * bits);
}

inline std::uint64_t unpack_lanes8(std::uint64_t row, int bits) {
    const std::uint64_t one = (std::uint64_t{1} << bits) - 1, pairs = unpack_lanes16(row, 2 * bits);
    return (pairs & one * 0x0001000100010001) | (pairs << (8 - bits) & one * 0x0100010001000100);
}

// Gives at most 57 bits at once.
class BitReader {
   public:
    explicit BitReader(const std::uint8_t* from) : from_(from) {}

    std::uint64_t get(int count) {
        const std::uint64_t bits = load64(from_ + at_ / 8) >> (at_ % 8) & ((std::uint64_t{1} << count) - 1);
        at_ += static_cast<std::uint64_t>(count);
        return bits;
    }

   private:
    const std::uint8_t* from_;
    std::uint64_t at_ = 0;
};

}  // namespace taut
