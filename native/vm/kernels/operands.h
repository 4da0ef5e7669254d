// Walking over the operands of prebuilt kernels.
#pragma once

#include <cstdint>

#include "vm/abi.h"

namespace taut::vm {

inline const Buffer& operand(void** arguments, int position) { return *static_cast<Buffer*>(arguments[position]); }

inline std::int64_t elements(const Buffer& buffer) {
    std::int64_t count = 1;
    for (int i = 0; i < buffer.dimensions; ++i) count *= buffer.dim[i].extent;
    return count;
}

inline bool equal_extents(const Buffer& a, const Buffer& b, int a_skip = 0, int b_skip = 0) {
    if (a.dimensions - a_skip != b.dimensions - b_skip) return false;
    for (int i = 0; i < a.dimensions - a_skip; ++i) {
        if (a.dim[i + a_skip].extent != b.dim[i + b_skip].extent) return false;
    }
    return true;
}

template <class Element>
Element& at(const Buffer& buffer, std::int64_t offset) {
    return reinterpret_cast<Element*>(buffer.host)[offset];
}

// Calls function(offset in a, offset in b, index) for each element of the dimensions from `a_skip` of a and `b_skip` of
// b, which have equal extents; the outermost dimension is the slowest. Stops at, and returns, the first non-zero result.
template <class Function>
int for_each(const Buffer& a, const Buffer& b, int a_skip, int b_skip, const Function& function) {
    const int rank = a.dimensions - a_skip;
    const Dimension* in = a.dim + a_skip;
    const Dimension* out = b.dim + b_skip;
    std::int64_t index[max_rank] = {};
    std::int64_t from = 0;
    std::int64_t to = 0;
    for (int i = 0; i < rank; ++i) {
        if (in[i].extent == 0) return 0;
    }
    while (true) {
        if (const int code = function(from, to, static_cast<const std::int64_t*>(index)); code != 0) return code;
        int dim = 0;
        for (; dim < rank; ++dim) {
            from += in[dim].stride;
            to += out[dim].stride;
            if (++index[dim] < in[dim].extent) break;
            from -= index[dim] * in[dim].stride;
            to -= index[dim] * out[dim].stride;
            index[dim] = 0;
        }
        if (dim == rank) return 0;
    }
}

inline DType dtype_of(const Buffer& buffer) {
    for (int i = 0; i < dtype_count; ++i) {
        const ElementType& type = dtype_traits[i].type;
        if (type.code == buffer.type.code && type.bits == buffer.type.bits) return static_cast<DType>(i);
    }
    return DType::uint8;
}

}  // namespace taut::vm
