// What the linear kernels check and do alike.
#pragma once

#include <nanobind/nanobind.h>

#include <string_view>

#include "bindings/tensor_view.h"
#include "int8_linear/int8_linear.h"

namespace taut {

// Reads x, the scales of the channels, the bias (None or a tensor), the activation and the number of threads into a
// call, and throws KernelError where they do not fit; `packed` and `y` are left to the caller.
Int8LinearCall read_linear_call(const TensorView& x, const TensorView& scales, nanobind::handle bias,
                                std::string_view activation, int threads);

// The shape of packed weights tells the depth only to some multiple; the trailer of the first block tells it exactly.
void require_depth(const Int8LinearCall& call, std::int64_t trailer_offset);

// Allocates y as a tensor like x and runs `kernel(call)`, without the interpreter lock where the work is worth it.
template <class Kernel>
nanobind::object run_linear_call(nanobind::handle x_object, const TensorView& x, Int8LinearCall& call,
                                 const Kernel& kernel) {
    // Releasing the lock takes longer than a call below this size.
    constexpr std::int64_t multiply_adds_to_release = 1 << 16;
    NewTensor y = new_tensor(x_object, x, call.channels);
    call.y = y.data;
    if (call.rows * call.channels * call.depth < multiply_adds_to_release) {
        kernel(call);
    } else {
        nanobind::gil_scoped_release released;
        kernel(call);
    }
    return std::move(y.object);
}

}  // namespace taut
