#include "vm/value.h"

#include <algorithm>
#include <new>

namespace taut::vm {
namespace {

constexpr std::size_t small_fields = 4;  // room in an object that is kept for reuse
constexpr int objects_kept = 256;        // in each thread; they stay accounted for

void free_object(Object* object) {
    account(-object->accounted, SIZE_MAX);
    delete object;
}

struct SpareObjects {
    Object* objects[objects_kept];
    int count = 0;
    bool closed = false;  // the thread ends; what it still releases is freed at once

    ~SpareObjects() {
        closed = true;
        while (count > 0) free_object(objects[--count]);
    }
};
thread_local SpareObjects spare_objects;

void recycle_object(Object* object) {
    object->fields.clear();
    SpareObjects& spare = spare_objects;
    const bool small = object->fields.capacity() == small_fields;
    if (!small || spare.closed || spare.count == objects_kept) return free_object(object);
    spare.objects[spare.count++] = object;
}

}  // namespace

const char* kind_name(Kind kind) {
    switch (kind) {
        case Kind::none: return "nothing";
        case Kind::integer: return "an integer";
        case Kind::tensor: return "a tensor";
        case Kind::object: return "an object";
    }
    return "";
}

std::string Tensor::text() const { return std::string(traits(dtype).name) + " " + shape_text(); }

std::string Tensor::shape_text() const {
    std::string text = "(";
    for (int i = 0; i < rank(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(size(i));
    return text + (rank() == 1 ? ",)" : ")");
}

Value::Value(const Value& other) : kind(other.kind), integer(other.integer) {
    if (kind == Kind::tensor) {
        box->references.fetch_add(1, std::memory_order_relaxed);
    } else if (kind == Kind::object) {
        retain(object);
    }
}

Value::~Value() {
    if (kind == Kind::object) {
        release(object);
    } else if (kind == Kind::tensor && box->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        box->tensor.drop();
        delete box;
    }
}

Object* new_object(std::int64_t tag, std::size_t fields, std::size_t limit) {
    SpareObjects& spare = spare_objects;
    if (fields <= small_fields && spare.count > 0) {
        Object* object = spare.objects[--spare.count];
        object->references.store(1, std::memory_order_relaxed);
        object->tag = tag;
        return object;
    }
    fields = std::max(fields, small_fields);
    const auto bytes = static_cast<std::int64_t>(sizeof(Object) + fields * sizeof(Value));
    if (!account(bytes, limit)) return nullptr;
    auto* object = new (std::nothrow) Object;
    if (object == nullptr) {
        account(-bytes, SIZE_MAX);
        return nullptr;
    }
    object->tag = tag;
    object->accounted = bytes;
    object->fields.reserve(fields);
    return object;
}

bool grow_object(Object* object, std::size_t limit) {
    if (object->fields.size() < object->fields.capacity()) return true;
    // A vector doubles.
    const auto bytes = static_cast<std::int64_t>(object->fields.capacity() * sizeof(Value));
    if (!account(bytes, limit)) return false;
    object->accounted += bytes;
    return true;
}

void release(Object* object) {
    if (object->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    // A long list of objects in objects must not use the machine's own stack.
    std::vector<Object*> pending{object};
    while (!pending.empty()) {
        Object* next = pending.back();
        pending.pop_back();
        for (Value& field : next->fields) {
            if (field.kind != Kind::object) continue;
            field.kind = Kind::none;
            if (field.object->references.fetch_sub(1, std::memory_order_acq_rel) == 1) pending.push_back(field.object);
        }
        recycle_object(next);
    }
}

void Register::share(const Register& other) {
    if (this == &other) return;
    clear();
    switch (other.kind) {
        case Kind::none: return;
        case Kind::integer: integer = other.integer; break;
        case Kind::tensor:
            tensor.share(other.tensor);
            read_only = other.read_only;
            break;
        case Kind::object:
            object = other.object;
            retain(object);
            break;
    }
    kind = other.kind;
}

bool Register::to_value(Value& value, std::size_t limit) const {
    Value made;
    switch (kind) {
        case Kind::none: break;
        case Kind::integer: made.integer = integer; break;
        case Kind::object:
            made.object = object;
            retain(object);
            break;
        case Kind::tensor: {
            auto* box = new (std::nothrow) Box;
            if (box == nullptr) return false;
            if (tensor.source != Source::arena) {
                box->tensor.share(tensor);
            } else if (!copy_tensor(tensor, box->tensor, limit)) {
                delete box;
                return false;
            }
            made.box = box;
            break;
        }
    }
    made.kind = kind;
    value = std::move(made);
    return true;
}

void Register::from_value(const Value& value) {
    // What this register holds may own the value.
    Value held(value);
    clear();
    switch (held.kind) {
        case Kind::none: return;
        case Kind::integer: integer = held.integer; break;
        case Kind::tensor:
            tensor.share(held.box->tensor);
            // Other objects may hold the same tensor.
            read_only = true;
            break;
        case Kind::object:
            object = held.object;
            retain(object);
            break;
    }
    kind = held.kind;
}

}  // namespace taut::vm
