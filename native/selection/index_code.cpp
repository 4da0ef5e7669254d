#include "selection/index_code.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "selection/bits.h"

namespace taut {
namespace {

constexpr int most_bits = 30;
constexpr std::int64_t block_header = 3;
// With the chosen parameter the gaps of a block leave at most three zeros each on average.
constexpr std::int64_t most_unary = index_block * 4 / 8;

// The parameter with the shortest code, near the logarithm of the mean gap.
int choose_bits(const std::uint32_t* gaps, std::int64_t count) {
    std::uint64_t total = 0;
    for (std::int64_t i = 0; i < count; ++i) total += gaps[i];
    const int guess = std::bit_width(total / static_cast<std::uint64_t>(count));
    int best = 0;
    std::uint64_t least = ~std::uint64_t{0};
    for (int bits = std::max(0, guess - 2); bits <= std::min(most_bits, guess); ++bits) {
        std::uint64_t cost = static_cast<std::uint64_t>(count) * static_cast<std::uint64_t>(bits);
        for (std::int64_t i = 0; i < count; ++i) cost += gaps[i] >> bits;
        if (cost < least) {
            least = cost;
            best = bits;
        }
    }
    return best;
}

std::uint8_t* encode_block(const std::uint32_t* gaps, std::int64_t count, std::uint8_t* code) {
    const int bits = choose_bits(gaps, count);
    const std::uint32_t mask = (1u << bits) - 1;
    BitWriter low(code + block_header);
    for (std::int64_t i = 0; i < count; ++i) low.put(gaps[i] & mask, bits);
    std::uint8_t* unary = low.finish();
    std::uint64_t unary_bits = 0;
    for (std::int64_t i = 0; i < count; ++i) unary_bits += (gaps[i] >> bits) + 1;
    const std::uint64_t bytes = (unary_bits + 7) / 8;
    std::memset(unary, 0, bytes);
    std::uint64_t at = 0;
    for (std::int64_t i = 0; i < count; ++i, ++at) {
        at += gaps[i] >> bits;
        unary[at / 8] = static_cast<std::uint8_t>(unary[at / 8] | 1u << at % 8);
    }
    code[0] = static_cast<std::uint8_t>(bits);
    code[1] = static_cast<std::uint8_t>(bytes & 0xff);
    code[2] = static_cast<std::uint8_t>(bytes >> 8);
    return unary + bytes;
}

// Decodes a block behind which `bit_padding` bytes may be read; `previous` is the index before it.
bool decode_block(const std::uint8_t* low, int bits, const std::uint8_t* unary, std::int64_t unary_bytes,
                  std::int64_t count, std::int64_t& previous, std::int32_t* indices) {
    std::int64_t index = previous;
    std::int64_t done = 0;
    BitReader rests(low);
    std::int64_t last_one = -1;
    for (std::int64_t base = 0; base < unary_bytes; base += 8) {
        std::uint64_t word = load64(unary + base);
        if (base + 8 > unary_bytes) word &= (std::uint64_t{1} << (8 * (unary_bytes - base))) - 1;
        while (word != 0) {
            if (done == count) return false;
            const std::int64_t one = 8 * base + std::countr_zero(word);
            word &= word - 1;
            const auto rest = static_cast<std::int64_t>(rests.get(bits));
            index += (one - last_one - 1) * (std::int64_t{1} << bits) + rest + 1;
            last_one = one;
            indices[done++] = static_cast<std::int32_t>(index);
        }
    }
    previous = index;
    return done == count;
}

}  // namespace

std::int64_t first_unordered(const std::int32_t* indices, std::int64_t count, std::int64_t length) {
    std::int64_t previous = -1;
    for (std::int64_t i = 0; i < count; ++i) {
        if (indices[i] <= previous || indices[i] >= length) return i;
        previous = indices[i];
    }
    return count;
}

// A gap costs at most 3 bits beyond the logarithm of the mean gap, which is below 31.
std::int64_t index_code_bound(std::int64_t count) {
    const std::int64_t blocks = (count + index_block - 1) / index_block;
    return index_header + blocks * (block_header + 2) + (count * 34 + 7) / 8 + bit_padding;
}

std::int64_t encode_indices(const std::int32_t* indices, std::int64_t count, std::uint8_t* code) {
    std::uint8_t* at = code;
    for (int byte = 0; byte < 4; ++byte) *at++ = static_cast<std::uint8_t>(count >> 8 * byte);
    std::int64_t previous = -1;
    for (std::int64_t begin = 0; begin < count; begin += index_block) {
        const std::int64_t size = std::min(index_block, count - begin);
        std::uint32_t gaps[index_block];
        for (std::int64_t i = 0; i < size; ++i) {
            gaps[i] = static_cast<std::uint32_t>(indices[begin + i] - previous - 1);
            previous = indices[begin + i];
        }
        at = encode_block(gaps, size, at);
    }
    return at - code;
}

std::int64_t index_count(const std::uint8_t* code, std::int64_t bytes) {
    if (bytes < index_header) return -1;
    std::uint32_t count = 0;
    for (int byte = 0; byte < 4; ++byte) count |= static_cast<std::uint32_t>(code[byte]) << 8 * byte;
    // Each index takes at least one bit, so that a small message cannot ask for much memory.
    return count > static_cast<std::uint64_t>(bytes - index_header) * 8 ? -1 : static_cast<std::int64_t>(count);
}

IndexFault decode_indices(const std::uint8_t* code, std::int64_t bytes, std::int64_t length, std::int64_t count,
                          std::int32_t* indices) {
    const std::uint8_t* at = code + index_header;
    const std::uint8_t* end = code + bytes;
    std::int64_t previous = -1;
    for (std::int64_t begin = 0; begin < count; begin += index_block) {
        const std::int64_t size = std::min(index_block, count - begin);
        if (end - at < block_header) return IndexFault::truncated;
        const int bits = at[0];
        const std::int64_t unary_bytes = at[1] | at[2] << 8;
        at += block_header;
        if (bits > most_bits) return IndexFault::parameter;
        const std::int64_t low = bytes_of_bits(size * bits);
        if (end - at < low + unary_bytes) return IndexFault::truncated;
        if (unary_bytes > most_unary) return IndexFault::unary;
        std::uint8_t copy[index_block * most_bits / 8 + most_unary + bit_padding];
        const std::uint8_t* block = at;
        if (end - at < low + unary_bytes + bit_padding) {
            std::memcpy(copy, at, static_cast<std::size_t>(low + unary_bytes));
            std::memset(copy + low + unary_bytes, 0, bit_padding);
            block = copy;
        }
        if (!decode_block(block, bits, block + low, unary_bytes, size, previous, indices + begin)) {
            return IndexFault::unary;
        }
        if (previous >= length) return IndexFault::range;
        at += low + unary_bytes;
    }
    return at == end ? IndexFault::none : IndexFault::trailing;
}

}  // namespace taut
