// The C structures of the DLPack exchange protocol, version 1 (https://dmlc.github.io/dlpack/latest/c_api.html).
// Only what taut reads is spelled out; field order and sizes are the protocol's.
#pragma once

#include <cstdint>

namespace taut::dlpack {

inline constexpr std::uint32_t major_version = 1;
inline constexpr std::int32_t device_cpu = 1;
enum TypeCode : std::uint8_t { code_int = 0, code_uint = 1, code_float = 2, code_bfloat = 4 };

struct Version {
    std::uint32_t major;
    std::uint32_t minor;
};

struct Device {
    std::int32_t type;
    std::int32_t id;
};

struct DataType {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    std::int32_t ndim;
    DataType dtype;
    std::int64_t* shape;
    std::int64_t* strides;
    std::uint64_t byte_offset;
};

struct ManagedTensor {
    Version version;
    void* context;
    void (*deleter)(ManagedTensor* self);
    std::uint64_t flags;
    Tensor tensor;
};

using SetError = void (*)(void* context, const char* kind, const char* message);

struct ExchangeHeader {
    Version version;
    ExchangeHeader* previous;
};

// The functions return 0, or something else with a Python error set (`allocate`: with `set_error` called).
struct ExchangeApi {
    ExchangeHeader header;
    int (*allocate)(Tensor* prototype, ManagedTensor** out, void* error_context, SetError set_error);
    void* managed_tensor_from_py_object;
    int (*to_py_object)(ManagedTensor* tensor, void** out);  // takes the tensor over
    int (*from_py_object)(void* object, Tensor* out);        // borrows; may be null
    void* current_work_stream;
};

inline constexpr const char* capsule_name = "dlpack_exchange_api";

}  // namespace taut::dlpack
