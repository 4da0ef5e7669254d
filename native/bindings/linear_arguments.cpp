#include "bindings/linear_arguments.h"

#include <cstring>
#include <string>

#include "bindings/activation.h"
#include "bindings/kernel_error.h"

namespace nb = nanobind;

namespace taut {

Int8LinearCall read_linear_call(const TensorView& x, const TensorView& scales, nb::handle bias_object,
                                std::string_view activation, int threads) {
    Int8LinearCall call{};
    call.activation = parse_activation(activation);
    if (x.dimensions == 0 || (x.dtype != DataType::float32 && x.dtype != DataType::bfloat16)) {
        throw KernelError("x: has shape " + x.shape_text() + " or a dtype that cannot be used",
                          "(..., in_features) in float32 or bfloat16", "convert it with tensor.to(torch.float32)");
    }
    call.element = x.dtype == DataType::float32 ? Element::float32 : Element::bfloat16;
    call.depth = x.shape[x.dimensions - 1];
    call.rows = 1;
    for (int i = 0; i + 1 < x.dimensions; ++i) call.rows *= x.shape[i];
    if (call.depth > max_depth) {
        throw KernelError("x: has " + std::to_string(call.depth) + " input features",
                          "at most 131072, so that 32-bit sums cannot overflow", "keep this layer in float32");
    }
    x.require_contiguous();
    call.x = x.data;

    scales.require_dtype(DataType::float32);
    call.channels = scales.dimensions == 1 ? scales.shape[0] : -1;
    scales.require_shape({call.channels});
    scales.require_contiguous();
    call.scales = static_cast<const float*>(scales.data);
    if (!bias_object.is_none()) {
        const TensorView bias = view_tensor(bias_object, "bias");
        bias.require_dtype(DataType::float32);
        bias.require_shape({call.channels});
        bias.require_contiguous();
        call.bias = static_cast<const float*>(bias.data);
    }
    if (threads < 1) {
        throw KernelError("threads: got " + std::to_string(threads), "1 or more", "pass torch.get_num_threads()");
    }
    return call;
}

void require_depth(const Int8LinearCall& call, std::int64_t trailer_offset) {
    if (call.channels == 0) return;
    std::int32_t depth;
    std::memcpy(&depth, call.packed + trailer_offset + group_bytes, sizeof depth);
    if (depth != call.depth) {
        throw KernelError("packed: was packed for " + std::to_string(depth) + " input features, x has " +
                              std::to_string(call.depth),
                          "x of shape (..., " + std::to_string(depth) + ")", "pass the inputs of that layer");
    }
}

}  // namespace taut
