#include "bindings/tensor_view.h"

#include <algorithm>

#include "bindings/dlpack.h"
#include "bindings/kernel_error.h"

namespace nb = nanobind;

namespace taut {
namespace {

// Set once when taut.kernels is imported; only tests change it.
struct TensorType {
    PyTypeObject* type = nullptr;
    const dlpack::ExchangeApi* exchange = nullptr;
};
TensorType tensor_type;

const char* dtype_name(DataType dtype) {
    switch (dtype) {
        case DataType::float32: return "float32";
        case DataType::bfloat16: return "bfloat16";
        case DataType::int8: return "int8";
        case DataType::uint8: return "uint8";
        case DataType::int32: return "int32";
        default: return "another dtype";
    }
}

std::int64_t dtype_bytes(DataType dtype) {
    return dtype == DataType::float32 || dtype == DataType::int32 ? 4 : dtype == DataType::bfloat16 ? 2 : 1;
}

[[noreturn]] void refuse(const char* name, const std::string& what, std::string expected, std::string fix) {
    throw KernelError(std::string(name) + ": " + what, std::move(expected), std::move(fix));
}

void refuse_dimensions(const TensorView& view, std::int64_t dimensions) {
    if (dimensions < 0 || dimensions > TensorView::max_dimensions) {
        refuse(view.name, "has " + std::to_string(dimensions) + " dimensions", "at most 16 dimensions",
               "reshape the tensor");
    }
}

DataType from_dlpack(dlpack::DataType dtype) {
    if (dtype.lanes != 1) return DataType::other;
    if (dtype.code == dlpack::code_float && dtype.bits == 32) return DataType::float32;
    if (dtype.code == dlpack::code_bfloat && dtype.bits == 16) return DataType::bfloat16;
    if (dtype.code == dlpack::code_int && dtype.bits == 8) return DataType::int8;
    if (dtype.code == dlpack::code_int && dtype.bits == 32) return DataType::int32;
    if (dtype.code == dlpack::code_uint && dtype.bits == 8) return DataType::uint8;
    return DataType::other;
}

void read_exchange(nb::handle object, TensorView& view) {
    dlpack::Tensor tensor{};
    if (tensor_type.exchange->from_py_object(object.ptr(), &tensor) != 0) {
        nb::python_error error;
        refuse(view.name, std::string("its memory cannot be read: ") + error.what(), "a dense tensor in CPU memory",
               "pass tensor.detach().cpu().contiguous()");
    }
    if (tensor.device.type != dlpack::device_cpu) {
        refuse(view.name, "is not in CPU memory", "a CPU tensor", "pass tensor.cpu()");
    }
    refuse_dimensions(view, tensor.ndim);
    view.data = tensor.data == nullptr ? nullptr : static_cast<char*>(tensor.data) + tensor.byte_offset;
    view.dimensions = tensor.ndim;
    view.dtype = from_dlpack(tensor.dtype);
    for (int i = 0; i < tensor.ndim; ++i) {
        view.shape[i] = tensor.shape[i];
        view.strides[i] = tensor.strides[i];
    }
}

DataType from_attribute(nb::handle object) {
    const nb::object dtype(object.attr("dtype"));
    const std::string name = nb::str(dtype).c_str();
    if (name == "torch.float32") return DataType::float32;
    if (name == "torch.bfloat16") return DataType::bfloat16;
    if (name == "torch.int8") return DataType::int8;
    if (name == "torch.uint8") return DataType::uint8;
    if (name == "torch.int32") return DataType::int32;
    return DataType::other;
}

void read_attributes(nb::handle object, TensorView& view) {
    try {
        if (!nb::cast<bool>(object.attr("is_cpu"))) {
            refuse(view.name, "is not in CPU memory", "a CPU tensor", "pass tensor.cpu()");
        }
        const nb::tuple shape(object.attr("shape"));
        const nb::tuple strides(object.attr("stride")());
        refuse_dimensions(view, static_cast<std::int64_t>(shape.size()));
        view.dimensions = static_cast<int>(shape.size());
        for (int i = 0; i < view.dimensions; ++i) {
            view.shape[i] = nb::cast<std::int64_t>(shape[i]);
            view.strides[i] = nb::cast<std::int64_t>(strides[i]);
        }
        view.dtype = from_attribute(object);
        view.data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(object.attr("data_ptr")()));
    } catch (nb::python_error& error) {
        refuse(view.name, std::string("its memory cannot be read: ") + error.what(), "a dense tensor in CPU memory",
               "pass tensor.detach().cpu().contiguous()");
    }
}

// A tensor whose dimension i is dimension order[i] of a contiguous one.
NewTensor allocate_exchange(const TensorView& view, std::int64_t* shape, const int* order) {
    dlpack::Tensor prototype{};
    prototype.device = {dlpack::device_cpu, 0};
    prototype.ndim = view.dimensions;
    prototype.dtype = view.dtype == DataType::float32 ? dlpack::DataType{dlpack::code_float, 32, 1}
                                                      : dlpack::DataType{dlpack::code_bfloat, 16, 1};
    prototype.shape = shape;
    std::string problem;
    const auto set_error = [](void* context, const char*, const char* message) {
        *static_cast<std::string*>(context) = message;
    };
    dlpack::ManagedTensor* tensor = nullptr;
    if (tensor_type.exchange->allocate(&prototype, &tensor, &problem, set_error) != 0) {
        refuse("y", "cannot be allocated: " + problem, "enough memory", "use a smaller batch");
    }
    void* data = static_cast<char*>(tensor->tensor.data) + tensor->tensor.byte_offset;
    // The consumer copies these two; the tensor is freed through its context alone.
    std::int64_t sizes[TensorView::max_dimensions];
    std::int64_t strides[TensorView::max_dimensions];
    if (order != nullptr) {
        for (int i = 0; i < view.dimensions; ++i) {
            sizes[i] = shape[order[i]];
            strides[i] = 1;
            for (int j = order[i] + 1; j < view.dimensions; ++j) strides[i] *= std::max<std::int64_t>(shape[j], 1);
        }
        tensor->tensor.shape = sizes;
        tensor->tensor.strides = strides;
    }
    void* object = nullptr;
    if (tensor_type.exchange->to_py_object(tensor, &object) != 0) throw nb::python_error();
    return {nb::steal(static_cast<PyObject*>(object)), data};
}

NewTensor allocate_attributes(nb::handle object, const TensorView& view, const std::int64_t* shape, const int* order) {
    nb::list sizes;
    for (int i = 0; i < view.dimensions; ++i) sizes.append(shape[i]);
    try {
        nb::object tensor = object.attr("new_empty")(sizes);
        void* data = view_tensor(tensor, "y").data;
        if (order == nullptr) return {std::move(tensor), data};
        nb::list dimensions;
        for (int i = 0; i < view.dimensions; ++i) dimensions.append(order[i]);
        return {nb::object(tensor.attr("permute")(dimensions)), data};
    } catch (nb::python_error& error) {
        refuse("y", std::string("cannot be allocated: ") + error.what(), "enough memory", "use a smaller batch");
    }
}

const dlpack::ExchangeApi* find_exchange(nb::handle type) {
    if (!nb::hasattr(type, "__dlpack_c_exchange_api__")) return nullptr;
    const nb::object capsule = type.attr("__dlpack_c_exchange_api__");
    if (!PyCapsule_IsValid(capsule.ptr(), dlpack::capsule_name)) return nullptr;
    const void* table = PyCapsule_GetPointer(capsule.ptr(), dlpack::capsule_name);
    // Newer tables link to older ones; only the header is the same in all.
    const auto* header = static_cast<const dlpack::ExchangeHeader*>(table);
    while (header != nullptr && header->version.major != dlpack::major_version) header = header->previous;
    const auto* api = reinterpret_cast<const dlpack::ExchangeApi*>(header);
    return api == nullptr || api->from_py_object == nullptr ? nullptr : api;
}

}  // namespace

std::int64_t TensorView::elements() const {
    std::int64_t count = 1;
    for (int i = 0; i < dimensions; ++i) count *= shape[i];
    return count;
}

std::string TensorView::shape_text() const {
    std::string text = "(";
    for (int i = 0; i < dimensions; ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    return text + ")";
}

void TensorView::require_dtype(DataType expected) const {
    if (dtype != expected) {
        refuse(name, std::string("has ") + dtype_name(dtype), dtype_name(expected),
               std::string("convert it with tensor.to(torch.") + dtype_name(expected) + ")");
    }
}

void TensorView::require_shape(std::initializer_list<std::int64_t> expected) const {
    bool equal = dimensions == static_cast<int>(expected.size());
    TensorView wanted{name};
    for (const std::int64_t size : expected) wanted.shape[wanted.dimensions++] = size;
    for (int i = 0; equal && i < dimensions; ++i) equal = shape[i] == wanted.shape[i];
    if (!equal) {
        refuse(name, "has shape " + shape_text(), "shape " + wanted.shape_text(),
               "pass the tensors that the packing function returned, with the inputs of that layer");
    }
}

void TensorView::require_contiguous() const {
    if (elements() == 0) return;
    std::int64_t stride = 1;
    for (int i = dimensions - 1; i >= 0; --i) {
        if (shape[i] != 1 && strides[i] != stride) {
            refuse(name, "is not contiguous", "row-major memory without gaps", "pass tensor.contiguous()");
        }
        stride *= shape[i];
    }
    if (data == nullptr || reinterpret_cast<std::uintptr_t>(data) % dtype_bytes(dtype) != 0) {
        refuse(name, data == nullptr ? "has no memory" : "is not aligned to its element", "an ordinary dense tensor",
               "pass tensor.clone()");
    }
}

bool bind_tensor_type(nb::handle type, bool exchange) {
    tensor_type.type = reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
    tensor_type.exchange = exchange ? find_exchange(type) : nullptr;
    return tensor_type.exchange != nullptr;
}

TensorView view_tensor(nb::handle object, const char* name) {
    if (tensor_type.type == nullptr || !PyObject_TypeCheck(object.ptr(), tensor_type.type)) {
        refuse(name, std::string("is a ") + Py_TYPE(object.ptr())->tp_name, "a torch.Tensor", "pass a tensor");
    }
    TensorView view{name};
    if (tensor_type.exchange != nullptr) {
        read_exchange(object, view);
    } else {
        read_attributes(object, view);
    }
    return view;
}

NewTensor new_tensor(nb::handle object, const TensorView& view, std::int64_t last_size, const int* order) {
    std::int64_t shape[TensorView::max_dimensions];
    for (int i = 0; i < view.dimensions; ++i) shape[i] = i + 1 < view.dimensions ? view.shape[i] : last_size;
    return tensor_type.exchange != nullptr ? allocate_exchange(view, shape, order)
                                           : allocate_attributes(object, view, shape, order);
}

}  // namespace taut
