// What registers hold: nothing, an integer, a tensor or an object.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "vm/abi.h"
#include "vm/memory.h"

namespace taut::vm {

enum class Kind : std::uint8_t { none, integer, tensor, object };

// With an article, for messages.
const char* kind_name(Kind kind);

// Where a tensor's memory comes from: the arena of an activation, a block that it holds a reference to, or an input or
// constant, which outlives the call and is not written.
enum class Source : std::uint8_t { arena, storage, borrowed };

struct Tensor {
    Buffer buffer;
    Dimension dims[max_rank];
    DType dtype;
    std::uint8_t device;
    Source source;
    std::uint32_t depth;  // of the activation, for Source::arena
    Storage* storage;     // of Source::storage

    int rank() const { return buffer.dimensions; }
    // The innermost dimension is the last, as in torch.
    std::int64_t size(int dim) const { return dims[rank() - 1 - dim].extent; }
    std::int64_t stride(int dim) const { return dims[rank() - 1 - dim].stride; }
    std::int64_t elements() const {
        std::int64_t count = 1;
        for (int i = 0; i < rank(); ++i) count *= dims[i].extent;
        return count;
    }
    std::string shape_text() const;  // e.g. "(2, 3)"
    std::string text() const;        // e.g. "float32 (2, 3)"

    // Fills in a buffer without dimensions.
    void start(DType type, int rank, std::uint8_t* host) {
        buffer = {0, nullptr, host, 0, traits(type).type, rank, dims, nullptr};
        dtype = type;
    }
    // As `other`, with a reference to its memory.
    void share(const Tensor& other) {
        buffer = other.buffer;
        buffer.dim = dims;
        for (int i = 0; i < other.rank(); ++i) dims[i] = other.dims[i];
        dtype = other.dtype;
        device = other.device;
        source = other.source;
        depth = other.depth;
        storage = other.storage;
        if (source == Source::storage) retain(storage);
    }
    void drop() {
        if (source == Source::storage) release(storage);
    }
};

// Sizes and strides of a contiguous tensor, outermost first; false when a size is negative or does not fit the buffer.
// Gives the number of bytes.
bool set_contiguous(Tensor& tensor, const std::int64_t* sizes, std::size_t& bytes);

// Whether dtype, device and sizes are equal.
bool same_type(const Tensor& a, const Tensor& b);
// Copies elements between tensors of equal shape and dtype.
void copy_elements(const Tensor& from, Tensor& to);
// A contiguous copy in a block of its own; false when memory is exhausted.
bool copy_tensor(const Tensor& from, Tensor& to, std::size_t limit);
// Makes a tensor out of part of another's memory; false when it would leave that.
bool view_tensor(const Tensor& base, std::int64_t offset, const std::int64_t* sizes, const std::int64_t* strides,
                 int rank, Tensor& to);
// Writes a number to each element.
void fill_elements(Tensor& tensor, double value, std::int64_t integer);

struct Object;

// A tensor on the heap, for objects.
struct Box {
    std::atomic<std::int64_t> references{1};
    Tensor tensor;
};

// A field of an object. Holds references; never memory of an arena.
struct Value {
    Kind kind = Kind::none;
    union {
        std::int64_t integer = 0;
        Box* box;
        Object* object;
    };

    Value() = default;
    Value(Value&& other) noexcept : kind(std::exchange(other.kind, Kind::none)), integer(other.integer) {}
    Value(const Value& other);
    Value& operator=(Value other) noexcept {
        std::swap(kind, other.kind);
        std::swap(integer, other.integer);
        return *this;
    }
    ~Value();
};

// A tag with fields; changed only while there is a single reference to it.
struct Object {
    std::atomic<std::int64_t> references{1};
    std::int64_t tag = 0;
    std::vector<Value> fields;
    std::int64_t accounted = 0;
};

Object* new_object(std::int64_t tag, std::size_t fields, std::size_t limit);
// Accounts for one more field; false when memory is exhausted.
bool grow_object(Object* object, std::size_t limit);
inline void retain(Object* object) { object->references.fetch_add(1, std::memory_order_relaxed); }
void release(Object* object);

struct Register {
    Kind kind = Kind::none;
    bool read_only = false;
    std::int64_t integer = 0;
    Object* object = nullptr;
    Tensor tensor;

    void clear() {
        if (kind == Kind::tensor) {
            tensor.drop();
        } else if (kind == Kind::object) {
            release(object);
        }
        kind = Kind::none;
    }
    void set_integer(std::int64_t value) {
        clear();
        kind = Kind::integer;
        integer = value;
    }
    // Takes the reference over.
    void set_object(Object* value) {
        clear();
        kind = Kind::object;
        object = value;
    }
    void share(const Register& other);
    // False when memory is exhausted, which only an arena's tensor needs.
    bool to_value(Value& value, std::size_t limit) const;
    void from_value(const Value& value);
};

}  // namespace taut::vm
