// Messages of the entries of a sparse tensor, their values and places.
//
//   3 x 8 bytes  bytes behind these, entries, a number of the sender's
// then, plain:
//   values, zeros up to a multiple of 4 bytes, indices
// or compact:
//   8 bytes      v
//   v bytes      values: in their code, or as they are
//   the rest is the code of the indices
// Numbers are little-endian.
#pragma once

#include <cstdint>

#include "selection/index_code.h"
#include "selection/value_code.h"

namespace taut {

inline constexpr std::int64_t message_header = 24;

// The bytes of a value, whether the message is compact, and whether values have a code then.
struct EntryForm {
    int width;
    bool compact;
    bool coded_values;
};

// Bytes that are enough for a message of any `count` entries; of plain ones exactly.
std::int64_t entry_message_bound(std::int64_t count, EntryForm form);

// Writes a message of entries, if compact with ascending indices, and returns its bytes.
std::int64_t pack_entries(const std::int32_t* indices, const std::uint8_t* values, std::int64_t count, EntryForm form,
                          std::int64_t number, std::uint8_t* message);

struct MessageHeader {
    std::int64_t bytes, entries, number;
};

void write_header(MessageHeader header, std::uint8_t* message);

// The header at the beginning of `message_header` bytes, as it is.
MessageHeader read_header(const std::uint8_t* message);

// What is wrong with a message, at most one of these.
struct EntryFault {
    ValueFault values = ValueFault::none;
    IndexFault indices = IndexFault::none;
    bool length = false;  // not the bytes that it should hold
    bool count = false;   // not as many indices as values
};

// Writes `count` indices, if compact ascending and below `length`, and values; what is written does not count after a
// fault. The message, of at most `bytes`, is not trusted.
EntryFault unpack_entries(const std::uint8_t* message, std::int64_t bytes, std::int64_t length, std::int64_t count,
                          EntryForm form, std::int32_t* indices, std::uint8_t* values);

}  // namespace taut
