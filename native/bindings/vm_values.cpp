#include "bindings/vm_values.h"

#include <climits>
#include <memory>
#include <unordered_map>

#include "bindings/dlpack.h"

namespace nb = nanobind;

namespace taut::vm {
namespace {

constexpr std::uint8_t code_bool = 6;
constexpr int deepest_object = 1000;

// Set once when taut.runtime is imported.
PyTypeObject* tensor_type = nullptr;
PyTypeObject* object_type = nullptr;
const dlpack::ExchangeApi* exchange = nullptr;

using FromPyObject = int (*)(void* object, dlpack::ManagedTensor** out);

[[noreturn]] void refuse(const std::string& name, const std::string& problem, std::string expected,
                         std::string fix = {}) {
    throw CallError({Fault::guard, name + ": " + problem, std::move(expected), std::move(fix)});
}

bool is_tensor(nb::handle object) { return PyObject_TypeCheck(object.ptr(), tensor_type); }

// False for an element type that programs do not have.
bool from_dlpack(dlpack::DataType given, DType& dtype) {
    if (given.lanes != 1) return false;
    for (int i = 0; i < dtype_count; ++i) {
        const ElementType type = dtype_traits[i].type;
        const bool boolean = static_cast<DType>(i) == DType::boolean;
        if (given.code == (boolean ? code_bool : type.code) && given.bits == dtype_traits[i].bytes * 8) {
            dtype = static_cast<DType>(i);
            return true;
        }
    }
    return false;
}

dlpack::DataType to_dlpack(DType dtype) {
    if (dtype == DType::boolean) return {code_bool, 8, 1};
    return {traits(dtype).type.code, traits(dtype).type.bits, 1};
}

// Copies the description of a tensor; false when the machine cannot describe it.
bool describe(const dlpack::Tensor& given, Tensor& tensor, std::string& problem) {
    DType dtype{};
    if (given.device.type != dlpack::device_cpu) return problem = "is not in CPU memory", false;
    if (given.ndim > max_rank) return problem = "has " + std::to_string(given.ndim) + " dimensions", false;
    if (!from_dlpack(given.dtype, dtype)) return problem = "has a dtype that programs do not take", false;
    tensor.start(dtype, given.ndim, static_cast<std::uint8_t*>(given.data));
    if (given.data != nullptr) {
        tensor.buffer.host += given.byte_offset;
    } else {
        // Empty tensors have no memory; kernels may still ask for a pointer.
        alignas(alignment) static std::uint8_t nowhere[alignment];
        tensor.buffer.host = nowhere;
    }
    tensor.device = 0;
    tensor.source = Source::borrowed;
    std::int64_t bytes = traits(dtype).bytes;
    std::int64_t dense = 1;
    for (int i = 0; i < given.ndim; ++i) {
        const std::int64_t size = given.shape[given.ndim - 1 - i];
        // The stride of a single element means nothing, but kernels look at it.
        const std::int64_t stride = size <= 1 ? dense : given.strides[given.ndim - 1 - i];
        if (size > INT32_MAX || stride > INT32_MAX || stride < -INT32_MAX ||
            __builtin_mul_overflow(bytes, size > 0 ? size : 1, &bytes)) {
            return problem = "is too large", false;
        }
        tensor.dims[i] = {0, static_cast<std::int32_t>(size), static_cast<std::int32_t>(stride), 0};
        dense = size > 1 ? size * stride : dense;
        if (dense > INT32_MAX || dense < -INT32_MAX) dense = 1;
    }
    return true;
}

bool is_dense(const Tensor& tensor) {
    // Programs view their arguments as row-major tensors.
    std::int64_t run = 1;
    for (int i = 0; i < tensor.rank(); ++i) {
        if (tensor.dims[i].extent > 1 && tensor.dims[i].stride != run) return false;
        run *= tensor.dims[i].extent;
    }
    return reinterpret_cast<std::uintptr_t>(tensor.buffer.host) % traits(tensor.dtype).bytes == 0;
}

// What a torch tensor holds on to when it is made of the machine's memory.
struct Export {
    dlpack::ManagedTensor managed;
    std::int64_t shape[max_rank];
    std::int64_t strides[max_rank];
    Storage* storage;
};

nb::object export_tensor(const Tensor& tensor) {
    auto made = std::make_unique<Export>();
    const int rank = tensor.rank();
    for (int i = 0; i < rank; ++i) {
        made->shape[i] = tensor.size(i);
        made->strides[i] = tensor.stride(i);
    }
    made->storage = tensor.source == Source::storage ? tensor.storage : nullptr;
    if (made->storage != nullptr) retain(made->storage);
    made->managed.version = {dlpack::major_version, 0};
    made->managed.context = made.get();
    made->managed.deleter = [](dlpack::ManagedTensor* managed) {
        auto* self = static_cast<Export*>(managed->context);
        if (self->storage != nullptr) release(self->storage);
        delete self;
    };
    made->managed.flags = 0;
    made->managed.tensor = {tensor.buffer.host, {dlpack::device_cpu, 0}, rank, to_dlpack(tensor.dtype),
                            made->shape, made->strides, 0};
    void* object = nullptr;
    // Torch takes it over, also when it fails.
    if (exchange->to_py_object(&made.release()->managed, &object) != 0) throw nb::python_error();
    return nb::steal(static_cast<PyObject*>(object));
}

[[noreturn]] void out_of_memory() {
    throw CallError({Fault::memory, "memory is exhausted", "results that fit", "use a smaller batch"});
}

nb::object write_tensor(const Tensor& tensor, std::size_t memory_limit) {
    if (tensor.device != 0) {
        throw CallError({Fault::program, "a result is on device " + std::to_string(tensor.device),
                         "results on device 0", {}});
    }
    bool backwards = false;
    for (int i = 0; i < tensor.rank(); ++i) backwards |= tensor.dims[i].stride < 0;
    if (tensor.source == Source::storage && !backwards) return export_tensor(tensor);
    Tensor copy;
    if (!copy_tensor(tensor, copy, memory_limit)) out_of_memory();
    nb::object made = export_tensor(copy);
    copy.drop();
    return made;
}

class ObjectReader {
   public:
    ObjectReader(const std::string& name, std::size_t memory_limit, std::vector<nb::object>& kept)
        : name_(name), memory_limit_(memory_limit), kept_(kept) {}

    Value read(nb::handle object, int depth) {
        if (depth > deepest_object) {
            refuse(name_, "is nested more than " + std::to_string(deepest_object) + " deep", "a shallower structure");
        }
        Value value;
        if (is_tensor(object)) {
            auto box = std::make_unique<Box>();
            read_tensor(object, name_, memory_limit_, box->tensor);
            kept_.push_back(nb::borrow(object));
            value.box = box.release();
            value.kind = Kind::tensor;
        } else if (PyLong_Check(object.ptr())) {
            value.integer = read_integer(object, name_.c_str());
            value.kind = Kind::integer;
        } else if (PyObject_TypeCheck(object.ptr(), object_type)) {
            // A named tuple of these two.
            if (PyTuple_GET_SIZE(object.ptr()) != 2) refuse(name_, "holds a malformed Object", "a tag and fields");
            read_fields(value, read_integer(PyTuple_GET_ITEM(object.ptr(), 0), name_.c_str()),
                        PyTuple_GET_ITEM(object.ptr(), 1), depth);
        } else if (PyTuple_Check(object.ptr()) || PyList_Check(object.ptr())) {
            read_fields(value, 0, object, depth);
        } else {
            refuse(name_, std::string("holds a ") + Py_TYPE(object.ptr())->tp_name,
                   "tensors, integers, tuples, lists and taut.runtime.Object");
        }
        return value;
    }

   private:
    void read_fields(Value& value, std::int64_t tag, nb::handle fields, int depth) {
        // A tuple of its own, as the conversion may run Python that changes a list.
        const nb::object items = nb::steal(PySequence_Tuple(fields.ptr()));
        if (!items.is_valid()) {
            const nb::python_error error;
            refuse(name_, std::string("the fields of an object cannot be read: ") + error.what(), "a list or tuple");
        }
        const auto count = static_cast<std::size_t>(PyTuple_GET_SIZE(items.ptr()));
        value.object = new_object(tag, count, memory_limit_);
        if (value.object == nullptr) out_of_memory();
        value.kind = Kind::object;
        for (std::size_t i = 0; i < count; ++i) {
            value.object->fields.push_back(read(PyTuple_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i)), depth + 1));
        }
    }

    const std::string& name_;
    std::size_t memory_limit_;
    std::vector<nb::object>& kept_;
};

class ObjectWriter {
   public:
    explicit ObjectWriter(std::size_t memory_limit) : memory_limit_(memory_limit) {}

    nb::object write(const Object* object, int depth) {
        if (depth > deepest_object) {
            throw CallError({Fault::program, "a result is nested more than " + std::to_string(deepest_object) + " deep",
                             "a shallower structure", {}});
        }
        // Each object once, or a structure that shares its parts would grow without end.
        if (const auto known = written_.find(object); known != written_.end()) return known->second;
        nb::list fields;
        for (const Value& field : object->fields) {
            switch (field.kind) {
                case Kind::none: fields.append(nb::none()); break;
                case Kind::integer: fields.append(field.integer); break;
                case Kind::tensor: fields.append(write_tensor(field.box->tensor, memory_limit_)); break;
                case Kind::object: fields.append(write(field.object, depth + 1)); break;
            }
        }
        nb::object made = nb::handle(reinterpret_cast<PyObject*>(object_type))(object->tag, fields);
        written_.emplace(object, made);
        return made;
    }

   private:
    std::size_t memory_limit_;
    std::unordered_map<const Object*, nb::object> written_;
};

}  // namespace

void bind_types(nb::handle tensors, nb::handle objects) {
    tensor_type = reinterpret_cast<PyTypeObject*>(tensors.inc_ref().ptr());
    object_type = reinterpret_cast<PyTypeObject*>(objects.inc_ref().ptr());
    const nb::object capsule = nb::getattr(tensors, "__dlpack_c_exchange_api__", nb::none());
    const dlpack::ExchangeHeader* header = nullptr;
    if (PyCapsule_IsValid(capsule.ptr(), dlpack::capsule_name)) {
        header = static_cast<const dlpack::ExchangeHeader*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::capsule_name));
    }
    // Newer tables link to older ones; only the header is the same in all.
    while (header != nullptr && header->version.major != dlpack::major_version) header = header->previous;
    exchange = reinterpret_cast<const dlpack::ExchangeApi*>(header);
    if (exchange == nullptr || exchange->from_py_object == nullptr) {
        throw CallError({Fault::kernel, "this torch has no DLPack exchange table", "torch 2.13",
                         "pip install -c constraints.txt torch"});
    }
}

std::int64_t read_integer(nb::handle object, const char* what, Fault fault) {
    int overflow = 0;
    const bool integer = PyLong_Check(object.ptr());
    const long long value = integer ? PyLong_AsLongLongAndOverflow(object.ptr(), &overflow) : 0;
    if (!integer || overflow != 0) {
        const std::string given = integer ? "a huge integer" : Py_TYPE(object.ptr())->tp_name;
        throw CallError({fault, std::string(what) + ": got " + given, "an integer of 64 bits", {}});
    }
    return value;
}

void read_tensor(nb::handle object, const std::string& name, std::size_t memory_limit, Tensor& tensor) {
    if (!is_tensor(object)) {
        refuse(name, std::string("is a ") + Py_TYPE(object.ptr())->tp_name, "a torch.Tensor", "pass a tensor");
    }
    // The table lends such a tensor without a word.
    static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
    const nb::object gradient = nb::steal(PyObject_GetAttr(object.ptr(), requires_grad));
    if (!gradient.is_valid()) throw nb::python_error();
    if (gradient.ptr() != Py_False) {
        refuse(name, "requires a gradient, which programs do not compute", "a tensor without", "pass tensor.detach()");
    }
    dlpack::Tensor given{};
    if (exchange->from_py_object(object.ptr(), &given) != 0) {
        nb::python_error error;
        refuse(name, std::string("its memory cannot be read: ") + error.what(), "a dense tensor in CPU memory",
               "pass tensor.detach().cpu()");
    }
    std::string problem;
    if (!describe(given, tensor, problem)) {
        refuse(name, problem, "a CPU tensor of at most 8 dimensions and a dtype of taut.runtime.DTYPES");
    }
    if (!is_dense(tensor)) {
        Tensor copy;
        if (!copy_tensor(tensor, copy, memory_limit)) out_of_memory();
        tensor.share(copy);
        copy.drop();
    }
}

void read_argument(nb::handle object, const Parameter& parameter, std::size_t memory_limit, Register& reg,
                   std::vector<nb::object>& kept) {
    reg.clear();
    if (parameter.kind == Kind::integer) {
        reg.set_integer(read_integer(object, parameter.name.c_str()));
        return;
    }
    if (parameter.kind == Kind::object) {
        if (is_tensor(object) || PyLong_Check(object.ptr())) {
            refuse(parameter.name, std::string("is a ") + Py_TYPE(object.ptr())->tp_name,
                   "a tuple, a list or a taut.runtime.Object");
        }
        reg.from_value(ObjectReader(parameter.name, memory_limit, kept).read(object, 0));
        return;
    }
    read_tensor(object, parameter.name, memory_limit, reg.tensor);
    reg.kind = Kind::tensor;
    reg.read_only = true;
    bool fits = reg.tensor.dtype == parameter.dtype &&
                reg.tensor.rank() == static_cast<int>(parameter.sizes.size());
    for (int i = 0; fits && i < reg.tensor.rank(); ++i) {
        fits = parameter.sizes[static_cast<std::size_t>(i)] < 0 ||
               parameter.sizes[static_cast<std::size_t>(i)] == reg.tensor.size(i);
    }
    if (!fits) {
        refuse(parameter.name, "is " + reg.tensor.text(),
               parameter.expected);
    }
}

nb::object write_result(const Register& reg, std::size_t memory_limit) {
    switch (reg.kind) {
        case Kind::integer: return nb::int_(reg.integer);
        case Kind::tensor: return write_tensor(reg.tensor, memory_limit);
        case Kind::object: return ObjectWriter(memory_limit).write(reg.object, 0);
        default: return nb::none();
    }
}

nb::object lend(const Register& reg) {
    if (reg.kind == Kind::integer) return nb::int_(reg.integer);
    if (reg.kind != Kind::tensor || reg.tensor.device != 0) {
        throw CallError({Fault::program, "a fallback is given something else than tensors and integers of device 0", {}, {}});
    }
    return export_tensor(reg.tensor);
}

void take_over(nb::handle object, Register& reg) {
    if (PyLong_Check(object.ptr())) {
        reg.set_integer(read_integer(object, "result of a fallback"));
        return;
    }
    if (!is_tensor(object)) {
        throw CallError({Fault::program, std::string("a fallback gives a ") + Py_TYPE(object.ptr())->tp_name,
                         "tensors and integers", {}});
    }
    dlpack::ManagedTensor* managed = nullptr;
    if (reinterpret_cast<FromPyObject>(exchange->managed_tensor_from_py_object)(object.ptr(), &managed) != 0) {
        throw nb::python_error();
    }
    Storage* storage = foreign_storage(managed, [](void* foreign) {
        auto* self = static_cast<dlpack::ManagedTensor*>(foreign);
        if (self->deleter != nullptr) self->deleter(self);
    });
    std::string problem;
    if (storage == nullptr || !describe(managed->tensor, reg.tensor, problem)) {
        if (storage != nullptr) release(storage);
        throw CallError({Fault::program, "the result of a fallback " + problem, {}, {}});
    }
    reg.tensor.source = Source::storage;
    reg.tensor.storage = storage;
    if (!is_dense(reg.tensor)) {
        Tensor copy;
        const bool copied = copy_tensor(reg.tensor, copy, SIZE_MAX);
        reg.tensor.drop();
        if (!copied) out_of_memory();
        reg.tensor.share(copy);
        copy.drop();
    }
    reg.kind = Kind::tensor;
    reg.read_only = false;
}

}  // namespace taut::vm
