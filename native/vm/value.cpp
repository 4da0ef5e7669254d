#include "vm/value.h"

#include <new>

namespace taut::vm {

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
    // A vector doubles.
    constexpr std::int64_t bytes = 2 * sizeof(Value);
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
        account(-next->accounted, SIZE_MAX);
        delete next;
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
