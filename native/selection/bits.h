// Bits in a row of bytes, from the lowest of the first byte on.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace taut {

inline std::uint64_t load64(const std::uint8_t* from) {
    std::uint64_t value;
    std::memcpy(&value, from, sizeof value);
    if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap64(value);
    return value;
}

inline void store64(std::uint8_t* to, std::uint64_t value) {
    if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap64(value);
    std::memcpy(to, &value, sizeof value);
}

// Bytes that may be read or written beyond the end.
inline constexpr std::int64_t bit_padding = 8;

inline constexpr std::int64_t bytes_of_bits(std::int64_t bits) { return (bits + 7) / 8; }

// Takes at most 57 bits at once.
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
