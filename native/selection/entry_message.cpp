#include "selection/entry_message.h"

#include <cstring>

#include "selection/bits.h"

namespace taut {
namespace {

constexpr std::int64_t number_bytes = 8;

std::int64_t aligned(std::int64_t bytes) { return (bytes + 3) / 4 * 4; }

void store(std::uint8_t* to, std::int64_t number) { store64(to, static_cast<std::uint64_t>(number)); }

// Of no bytes, pointers may be null.
void copy(void* to, const void* from, std::int64_t bytes) {
    if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

// Each writes what follows the header and returns where it ends.
std::uint8_t* pack_plain(const std::int32_t* indices, const std::uint8_t* values, std::int64_t count, int width,
                         std::uint8_t* at) {
    const std::int64_t bytes = count * width;
    copy(at, values, bytes);
    std::memset(at + bytes, 0, static_cast<std::size_t>(aligned(bytes) - bytes));
    at += aligned(bytes);
    copy(at, indices, 4 * count);
    return at + 4 * count;
}

std::uint8_t* pack_compact(const std::int32_t* indices, const std::uint8_t* values, std::int64_t count, EntryForm form,
                           std::uint8_t* at) {
    std::uint8_t* length = at;
    at += number_bytes;
    std::int64_t bytes = count * form.width;
    if (form.coded_values) {
        bytes = encode_values(values, count, form.width, at);
    } else {
        copy(at, values, bytes);
    }
    store(length, bytes);
    at += bytes;
    return at + encode_indices(indices, count, at);
}

EntryFault unpack_compact(const std::uint8_t* at, std::int64_t bytes, std::int64_t length, std::int64_t count,
                          EntryForm form, std::int32_t* indices, std::uint8_t* values) {
    if (bytes < number_bytes) return {.length = true};
    const std::uint64_t claimed = load64(at);
    at += number_bytes;
    bytes -= number_bytes;
    if (claimed > static_cast<std::uint64_t>(bytes)) return {.length = true};
    const auto value_bytes = static_cast<std::int64_t>(claimed);
    if (form.coded_values) {
        const ValueFault fault = decode_values(at, value_bytes, count, form.width, values);
        if (fault != ValueFault::none) return {.values = fault};
    } else {
        if (value_bytes != count * form.width) return {.length = true};
        copy(values, at, value_bytes);
    }
    at += value_bytes;
    bytes -= value_bytes;
    if (index_count(at, bytes) != count) return {.count = true};
    return {.indices = decode_indices(at, bytes, length, count, indices)};
}

}  // namespace

std::int64_t entry_message_bound(std::int64_t count, EntryForm form) {
    const std::int64_t plain = count * form.width;
    if (!form.compact) return message_header + aligned(plain) + 4 * count;
    const std::int64_t values = form.coded_values ? value_code_bound(count, form.width) : plain;
    return message_header + number_bytes + values + index_code_bound(count);
}

std::int64_t pack_entries(const std::int32_t* indices, const std::uint8_t* values, std::int64_t count, EntryForm form,
                          std::int64_t number, std::uint8_t* message) {
    std::uint8_t* begin = message + message_header;
    const std::uint8_t* end = form.compact ? pack_compact(indices, values, count, form, begin)
                                           : pack_plain(indices, values, count, form.width, begin);
    write_header({end - begin, count, number}, message);
    return end - message;
}

void write_header(MessageHeader header, std::uint8_t* message) {
    store(message, header.bytes);
    store(message + number_bytes, header.entries);
    store(message + 2 * number_bytes, header.number);
}

MessageHeader read_header(const std::uint8_t* message) {
    const auto number = [&](int place) { return static_cast<std::int64_t>(load64(message + place * number_bytes)); };
    return {number(0), number(1), number(2)};
}

EntryFault unpack_entries(const std::uint8_t* message, std::int64_t bytes, std::int64_t length, std::int64_t count,
                          EntryForm form, std::int32_t* indices, std::uint8_t* values) {
    if (bytes < message_header) return {.length = true};
    const std::int64_t claimed = read_header(message).bytes;
    if (claimed < 0 || claimed > bytes - message_header) return {.length = true};
    bytes = claimed;
    const std::uint8_t* at = message + message_header;
    if (form.compact) return unpack_compact(at, bytes, length, count, form, indices, values);
    const std::int64_t plain = count * form.width;
    if (bytes != aligned(plain) + 4 * count) return {.length = true};
    copy(values, at, plain);
    copy(indices, at + aligned(plain), 4 * count);
    return {};
}

}  // namespace taut
