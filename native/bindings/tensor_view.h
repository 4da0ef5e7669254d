// Reads a torch tensor without torch headers, and checks it before its pointer is used.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

namespace taut {

enum class DataType { float32, bfloat16, int8, uint8, int32, other };

// A tensor's memory, valid while the tensor is referenced and neither resized nor freed.
struct TensorView {
    static constexpr int max_dimensions = 16;

    const char* name;
    void* data = nullptr;
    int dimensions = 0;
    DataType dtype = DataType::other;
    std::int64_t shape[max_dimensions];
    std::int64_t strides[max_dimensions];

    std::int64_t elements() const;
    std::string shape_text() const;

    // Each throws KernelError naming the tensor when it does not hold.
    void require_dtype(DataType expected) const;
    void require_shape(std::initializer_list<std::int64_t> expected) const;
    // Row-major without gaps, the pointer aligned to its element and not null unless the tensor is empty.
    void require_contiguous() const;
};

// Tells which class counts as a tensor. Uses its DLPack exchange table if it has one, and with `exchange` false (or
// without a table) its attributes. Returns whether the table is in use.
bool bind_tensor_type(nanobind::handle type, bool exchange);

// Throws KernelError if `object` is no dense CPU tensor.
TensorView view_tensor(nanobind::handle object, const char* name);

// A new, uninitialised, contiguous tensor of the dtype (float32 or bfloat16) and shape of `view`, which is of `object`,
// but for its last size. With `order`, dimension i of the object is dimension order[i] of that.
struct NewTensor {
    nanobind::object object;
    void* data;
};
NewTensor new_tensor(nanobind::handle object, const TensorView& view, std::int64_t last_size,
                     const int* order = nullptr);

}  // namespace taut
