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

constexpr int unary_run = 8;
constexpr std::int64_t lanes = 4;  // that a word takes in
constexpr int lane_bits = 14;      // so that four lanes are at most 56 bits

// The parameter with the shortest code, near the logarithm of the mean gap; `total` is all gaps together, below 2^31.
int choose_bits(const std::uint32_t* gaps, std::int64_t count, std::uint32_t total) {
    const int most = std::min<int>(most_bits, std::bit_width(total / static_cast<std::uint32_t>(count)));
    const int least = std::max(0, most - 2);
    std::uint32_t zeros[3] = {};
    for (std::int64_t i = 0; i < count; ++i) {
        for (int above = 0; above < 3; ++above) zeros[above] += gaps[i] >> least >> above;
    }
    int best = least;
    for (int bits = least + 1; bits <= most; ++bits) {
        if (zeros[bits - least] + count * bits < zeros[best - least] + count * best) best = bits;
    }
    return best;
}

// The low bits of the gaps.
std::uint8_t* encode_rests(const std::uint32_t* gaps, std::int64_t count, int bits, std::uint8_t* to) {
    const std::uint32_t mask = (1u << bits) - 1;
    BitWriter writer(to);
    std::int64_t i = 0;
    if (bits <= lane_bits) {
        std::uint16_t rests[index_block];
        for (std::int64_t j = 0; j < count; ++j) rests[j] = static_cast<std::uint16_t>(gaps[j] & mask);
        for (; i + lanes <= count; i += lanes) {
            const auto* at = reinterpret_cast<const std::uint8_t*>(rests + i);
            writer.put(pack_lanes16(load64(at), bits), static_cast<int>(lanes) * bits);
        }
    }
    for (; i < count; ++i) writer.put(gaps[i] & mask, bits);
    return writer.finish();
}

// So many zeros and a one.
void put_unary(std::uint32_t zeros, BitWriter& writer) {
    constexpr int most = 32;
    for (; zeros >= most; zeros -= most) writer.put(0, most);
    writer.put(std::uint64_t{1} << zeros, static_cast<int>(zeros) + 1);
}

std::uint8_t* encode_quotients(const std::uint32_t* gaps, std::int64_t count, int bits, std::uint8_t* to) {
    BitWriter writer(to);
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
        const std::uint32_t first = gaps[i] >> bits, second = first + 1 + (gaps[i + 1] >> bits);
        const std::uint32_t third = second + 1 + (gaps[i + 2] >> bits), fourth = third + 1 + (gaps[i + 3] >> bits);
        constexpr std::uint64_t one = 1;
        if (fourth < 56) {
            writer.put(one << first | one << second | one << third | one << fourth, static_cast<int>(fourth) + 1);
        } else {
            for (std::int64_t j = i; j < i + lanes; ++j) put_unary(gaps[j] >> bits, writer);
        }
    }
    for (; i < count; ++i) put_unary(gaps[i] >> bits, writer);
    return writer.finish();
}

std::uint8_t* encode_block(const std::uint32_t* gaps, std::int64_t count, std::uint32_t total, std::uint8_t* code) {
    const int bits = choose_bits(gaps, count, total);
    std::uint8_t* unary = encode_rests(gaps, count, bits, code + block_header);
    std::uint8_t* end = encode_quotients(gaps, count, bits, unary);
    const std::int64_t bytes = end - unary;
    code[0] = static_cast<std::uint8_t>(bits);
    code[1] = static_cast<std::uint8_t>(bytes & 0xff);
    code[2] = static_cast<std::uint8_t>(bytes >> 8);
    return end;
}

// The zeros before each of the ones of a unary part, if there are `count` of these. They are written in runs.
bool count_zeros(const std::uint8_t* unary, std::int64_t bytes, std::int64_t count, std::uint32_t* zeros) {
    std::int64_t done = 0;
    for (std::int64_t base = 0; base < bytes; base += 8) {
        std::uint64_t word = load64(unary + base);
        if (base + 8 > bytes) word &= (std::uint64_t{1} << (8 * (bytes - base))) - 1;
        const int ones = std::popcount(word);
        if (done + ones > count) return false;
        const auto before = static_cast<std::uint32_t>(8 * base - done);
        for (int run = 0; run < ones; run += unary_run) {
            for (int i = run; i < run + unary_run; ++i) {
                const int place = std::countr_zero(word | std::uint64_t{1} << 63);  // which nobody asks for if none is left
                zeros[done + i] = before + static_cast<std::uint32_t>(place - i);
                word &= word - 1;
            }
        }
        done += ones;
    }
    return done == count;
}

// Decodes a block behind which `bit_padding` bytes may be read; `previous` is the index before it.
bool decode_block(const std::uint8_t* low, int bits, const std::uint8_t* unary, std::int64_t unary_bytes,
                  std::int64_t count, std::int64_t& previous, std::int32_t* indices) {
    std::uint32_t zeros[index_block + unary_run];
    if (!count_zeros(unary, unary_bytes, count, zeros)) return false;
    const std::int64_t quotients = static_cast<std::int64_t>(zeros[count - 1]) << bits;
    for (std::uint32_t i = 0; i < count; ++i) zeros[i] = (zeros[i] << bits) + i + 1;
    BitReader reader(low);
    auto sum = static_cast<std::uint64_t>(previous);
    std::int64_t i = 0;
    if (bits <= lane_bits) {
        std::uint16_t rests[index_block];
        for (; i + lanes <= count; i += lanes) {
            const std::uint64_t four = reader.get(static_cast<int>(lanes) * bits);
            store64(reinterpret_cast<std::uint8_t*>(rests + i), unpack_lanes16(four, bits));
        }
        for (std::int64_t j = 0; j < i; ++j) {
            sum += rests[j];
            indices[j] = static_cast<std::int32_t>(zeros[j] + static_cast<std::uint32_t>(sum));
        }
    }
    for (; i < count; ++i) {
        sum += reader.get(bits);
        indices[i] = static_cast<std::int32_t>(zeros[i] + static_cast<std::uint32_t>(sum));
    }
    previous = static_cast<std::int64_t>(sum) + quotients + count;
    return true;
}

}  // namespace

std::int64_t first_unordered(const std::int32_t* indices, std::int64_t count, std::int64_t length) {
    std::int64_t previous = -1;
    for (std::int64_t begin = 0; begin < count; begin += index_block) {
        const std::int64_t end = std::min(count, begin + index_block);
        int falls = indices[begin] <= previous || indices[end - 1] >= length ? 1 : 0;
        for (std::int64_t i = begin + 1; i < end; ++i) falls |= indices[i] <= indices[i - 1] ? 1 : 0;
        if (falls != 0) {
            for (std::int64_t i = begin;; previous = indices[i++]) {
                if (indices[i] <= previous || indices[i] >= length) return i;
            }
        }
        previous = indices[end - 1];
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
        const std::int32_t* block = indices + begin;
        std::uint32_t gaps[index_block];
        gaps[0] = static_cast<std::uint32_t>(block[0] - previous - 1);
        for (std::int64_t i = 1; i < size; ++i) gaps[i] = static_cast<std::uint32_t>(block[i] - block[i - 1] - 1);
        const auto total = static_cast<std::uint32_t>(block[size - 1] - previous - size);
        previous = block[size - 1];
        at = encode_block(gaps, size, total, at);
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
