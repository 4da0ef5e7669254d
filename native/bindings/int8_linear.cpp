// Checks the arguments of the int8 linear kernel and calls it.
#include "int8_linear/int8_linear.h"

#include <nanobind/stl/string_view.h>

#include <cstring>
#include <string>
#include <string_view>

#include "bindings/activation.h"
#include "bindings/bindings.h"
#include "bindings/kernel_error.h"
#include "bindings/tensor_view.h"

namespace nb = nanobind;

namespace taut {
namespace {

// Releasing the interpreter lock takes longer than a call below this size.
constexpr std::int64_t multiply_adds_to_release = 1 << 16;

// The shape tells the depth to a multiple of four; the first block's trailer tells it exactly.
void require_depth(const Int8LinearCall& call, std::int64_t groups) {
    std::int32_t depth;
    std::memcpy(&depth, call.packed + (groups + 1) * group_bytes, sizeof depth);
    if (depth != call.depth) {
        throw KernelError("packed: was packed for " + std::to_string(depth) + " input features, x has " +
                              std::to_string(call.depth),
                          "x of shape (..., " + std::to_string(depth) + ")", "pass the inputs of that layer");
    }
}

nb::object run(nb::handle x_object, nb::handle packed_object, nb::handle scales_object, nb::handle bias_object,
               std::string_view activation, int threads) {
    const TensorView x = view_tensor(x_object, "x");
    const TensorView packed = view_tensor(packed_object, "packed");
    const TensorView scales = view_tensor(scales_object, "scales");

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

    scales.require_dtype(DataType::float32);
    call.channels = scales.dimensions == 1 ? scales.shape[0] : -1;
    scales.require_shape({call.channels});
    scales.require_contiguous();
    packed.require_dtype(DataType::int8);
    const std::int64_t groups = (call.depth + group_depth - 1) / group_depth;
    packed.require_shape({(call.channels + block_channels - 1) / block_channels, groups + trailer_groups,
                          block_channels, group_depth});
    packed.require_contiguous();
    call.packed = static_cast<const std::int8_t*>(packed.data);
    if (call.channels > 0) require_depth(call, groups);
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

    NewTensor y = new_tensor(x_object, x, call.channels);
    call.x = x.data;
    call.y = y.data;
    call.scales = static_cast<const float*>(scales.data);
    if (call.rows * call.channels * call.depth < multiply_adds_to_release) {
        int8_linear(call, threads);
    } else {
        nb::gil_scoped_release released;
        int8_linear(call, threads);
    }
    return std::move(y.object);
}

}  // namespace

void bind_int8_linear(nb::module_& module) {
    module.def("int8_linear", &run, nb::arg("x").none(), nb::arg("packed").none(), nb::arg("scales").none(),
               nb::arg("bias").none(), nb::arg("activation"), nb::arg("threads"));
    module.attr("max_depth") = max_depth;
}

}  // namespace taut
