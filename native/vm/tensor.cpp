#include <climits>
#include <cmath>
#include <cstring>

#include "vm/float16.h"
#include "vm/value.h"

namespace taut::vm {
namespace {

template <class Function>
void for_each_row(const Tensor& from, Tensor& to, int inner, const Function& function) {
    const int rank = from.rank();
    const std::int64_t bytes = traits(from.dtype).bytes;
    std::int64_t index[max_rank] = {};
    const std::uint8_t* source = from.buffer.host;
    std::uint8_t* target = to.buffer.host;
    while (true) {
        function(source, target);
        int dim = inner;
        for (; dim < rank; ++dim) {
            source += from.dims[dim].stride * bytes;
            target += to.dims[dim].stride * bytes;
            if (++index[dim] < from.dims[dim].extent) break;
            source -= index[dim] * from.dims[dim].stride * bytes;
            target -= index[dim] * to.dims[dim].stride * bytes;
            index[dim] = 0;
        }
        if (dim >= rank) return;
    }
}

template <class Element>
void copy_row(const std::uint8_t* source, std::int64_t source_stride, std::uint8_t* target, std::int64_t target_stride,
              std::int64_t count) {
    const auto* in = reinterpret_cast<const Element*>(source);
    auto* out = reinterpret_cast<Element*>(target);
    for (std::int64_t i = 0; i < count; ++i) out[i * target_stride] = in[i * source_stride];
}

// Innermost dimensions that are without gaps in both, as one run.
int dense_dimensions(const Tensor& from, const Tensor& to, std::int64_t& run) {
    run = 1;
    for (int i = 0; i < from.rank(); ++i) {
        const bool dense = from.dims[i].stride == run && to.dims[i].stride == run;
        if (from.dims[i].extent != 1 && !dense) return i;
        run *= from.dims[i].extent;
    }
    return from.rank();
}

template <class Element>
void fill_with(Tensor& tensor, Element value) {
    for_each_row(tensor, tensor, 1, [&](const std::uint8_t*, std::uint8_t* target) {
        auto* out = reinterpret_cast<Element*>(target);
        const std::int64_t count = tensor.rank() == 0 ? 1 : tensor.dims[0].extent;
        const std::int64_t stride = tensor.rank() == 0 ? 1 : tensor.dims[0].stride;
        for (std::int64_t i = 0; i < count; ++i) out[i * stride] = value;
    });
}

}  // namespace

bool set_contiguous(Tensor& tensor, const std::int64_t* sizes, std::size_t& bytes) {
    const int rank = tensor.rank();
    std::int64_t count = traits(tensor.dtype).bytes;
    std::int64_t stride = 1;
    for (int i = 0; i < rank; ++i) {
        const std::int64_t size = sizes[rank - 1 - i];
        if (size < 0 || size > INT32_MAX || stride > INT32_MAX) return false;
        tensor.dims[i] = {0, static_cast<std::int32_t>(size), static_cast<std::int32_t>(stride), 0};
        if (__builtin_mul_overflow(stride, size > 0 ? size : 1, &stride)) return false;
        if (__builtin_mul_overflow(count, size, &count)) return false;
    }
    bytes = static_cast<std::size_t>(count);
    return true;
}

bool same_type(const Tensor& a, const Tensor& b) {
    if (a.rank() != b.rank() || a.dtype != b.dtype || a.device != b.device) return false;
    for (int i = 0; i < a.rank(); ++i) {
        if (a.dims[i].extent != b.dims[i].extent) return false;
    }
    return true;
}

void copy_elements(const Tensor& from, Tensor& to) {
    if (from.elements() == 0) return;
    const std::int64_t bytes = traits(from.dtype).bytes;
    std::int64_t run = 1;
    int inner = dense_dimensions(from, to, run);
    if (inner > 0 || from.rank() == 0) {
        const auto size = static_cast<std::size_t>(run * bytes);
        for_each_row(from, to, inner, [&](const std::uint8_t* source, std::uint8_t* target) {
            std::memmove(target, source, size);
        });
        return;
    }
    const std::int64_t in = from.dims[0].stride;
    const std::int64_t out = to.dims[0].stride;
    const std::int64_t count = from.dims[0].extent;
    for_each_row(from, to, 1, [&](const std::uint8_t* source, std::uint8_t* target) {
        switch (bytes) {
            case 1: return copy_row<std::uint8_t>(source, in, target, out, count);
            case 2: return copy_row<std::uint16_t>(source, in, target, out, count);
            case 4: return copy_row<std::uint32_t>(source, in, target, out, count);
            default: return copy_row<std::uint64_t>(source, in, target, out, count);
        }
    });
}

bool copy_tensor(const Tensor& from, Tensor& to, std::size_t limit) {
    std::int64_t sizes[max_rank];
    for (int i = 0; i < from.rank(); ++i) sizes[i] = from.size(i);
    to.start(from.dtype, from.rank(), nullptr);
    std::size_t bytes = 0;
    if (!set_contiguous(to, sizes, bytes)) return false;
    to.storage = new_storage(bytes, limit);
    if (to.storage == nullptr) return false;
    to.buffer.host = to.storage->data;
    to.device = from.device;
    to.source = Source::storage;
    copy_elements(from, to);
    return true;
}

bool view_tensor(const Tensor& base, std::int64_t offset, const std::int64_t* sizes, const std::int64_t* strides,
                 int rank, Tensor& to) {
    // First and last element of the base, relative to its pointer, then of the view.
    std::int64_t low = 0;
    std::int64_t high = 0;
    for (int i = 0; i < base.rank(); ++i) {
        const std::int64_t extent = base.dims[i].extent;
        const std::int64_t reach = (extent - 1) * base.dims[i].stride;
        if (extent == 0) {
            low = 0;
            high = -1;
            break;
        }
        (reach < 0 ? low : high) += reach;
    }
    std::int64_t first = offset;
    std::int64_t last = offset;
    std::int64_t bytes = traits(base.dtype).bytes;
    bool empty = false;
    to.start(base.dtype, rank, base.buffer.host);
    for (int i = 0; i < rank; ++i) {
        const std::int64_t size = sizes[rank - 1 - i];
        const std::int64_t stride = strides[rank - 1 - i];
        if (size < 0 || size > INT32_MAX || stride > INT32_MAX || stride < -INT32_MAX) return false;
        to.dims[i] = {0, static_cast<std::int32_t>(size), static_cast<std::int32_t>(stride), 0};
        // A stride of 0 repeats elements; their number must still be one.
        if (__builtin_mul_overflow(bytes, size > 0 ? size : 1, &bytes)) return false;
        if (size == 0) {
            empty = true;
        } else if (std::int64_t& end = stride < 0 ? first : last; __builtin_add_overflow(end, (size - 1) * stride, &end)) {
            return false;
        }
    }
    if (!empty) {
        if (first < low || last > high) return false;
        to.buffer.host += offset * traits(base.dtype).bytes;
    }
    to.device = base.device;
    to.source = base.source;
    to.depth = base.depth;
    to.storage = base.storage;
    if (to.source == Source::storage) retain(to.storage);
    return true;
}

void fill_elements(Tensor& tensor, double value, std::int64_t integer) {
    if (tensor.elements() == 0) return;
    switch (tensor.dtype) {
        case DType::float32: return fill_with(tensor, static_cast<float>(value));
        case DType::float64: return fill_with(tensor, value);
        case DType::bfloat16: return fill_with(tensor, to_bfloat16(static_cast<float>(value)));
        case DType::float16: return fill_with(tensor, to_float16(static_cast<float>(value)));
        case DType::int64: return fill_with(tensor, integer);
        case DType::int32: return fill_with(tensor, static_cast<std::int32_t>(integer));
        case DType::int16: return fill_with(tensor, static_cast<std::int16_t>(integer));
        case DType::int8: return fill_with(tensor, static_cast<std::int8_t>(integer));
        case DType::uint8: return fill_with(tensor, static_cast<std::uint8_t>(integer));
        case DType::boolean: return fill_with(tensor, static_cast<std::uint8_t>(value != 0));
    }
}

}  // namespace taut::vm
