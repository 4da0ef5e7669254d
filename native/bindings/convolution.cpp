// Checks the arguments of the convolution kernels and calls them.
#include "convolution/convolution.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/string_view.h>

#include <array>
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

using Pair = std::array<std::int64_t, 2>;

// Releasing the interpreter lock takes longer than a call below this size.
constexpr std::int64_t multiply_adds_to_release = 1 << 16;
// Far beyond what networks use, and small enough for no product of sizes to overflow.
constexpr std::int64_t max_geometry = 4096;

constexpr const char* repack = "pass what the pack function of this operator returned, with the inputs of that layer";

void require_range(const char* name, const Pair& pair, std::int64_t least) {
    for (const std::int64_t value : pair) {
        if (value < least || value > max_geometry) {
            throw KernelError(std::string(name) + ": got " + std::to_string(value),
                              std::to_string(least) + " to " + std::to_string(max_geometry),
                              "pass the numbers of the torch.nn.Conv2d");
        }
    }
}

void require_sizes(const TensorView& view, std::initializer_list<std::int64_t> sizes) {
    bool equal = view.dimensions == static_cast<int>(sizes.size());
    std::string text;
    int i = 0;
    for (const std::int64_t size : sizes) {
        text += (i == 0 ? "(" : ", ") + std::to_string(size);
        equal = equal && view.shape[i++] == size;
    }
    if (!equal) {
        throw KernelError(std::string(view.name) + ": has shape " + view.shape_text(), "shape " + text + ")", repack);
    }
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The shape tells the input channels to a multiple of four or sixteen; the last trailer group tells them exactly.
void require_packed(const ConvolutionCall& call, const TensorView& packed) {
    const std::int64_t taps = call.vertical.kernel * call.horizontal.kernel;
    const std::int64_t blocks = ceil_div(call.out_channels, block_channels);
    packed.require_dtype(DataType::int8);
    std::int64_t block_bytes;
    if (call.coding == WeightCoding::int8) {
        const std::int64_t groups = taps * ceil_div(call.channels, group_depth) + trailer_groups;
        require_sizes(packed, {blocks, groups, block_channels, group_depth});
        block_bytes = groups * group_bytes;
    } else {
        block_bytes = taps * ceil_div(call.channels, vector_channels) * (vector_code_bytes + vector_scale_bytes) +
                      trailer_groups * group_bytes;
        require_sizes(packed, {blocks, block_bytes});
    }
    packed.require_contiguous();
    if (blocks == 0) return;
    std::int32_t channels;
    std::memcpy(&channels, static_cast<const char*>(packed.data) + block_bytes - group_bytes, sizeof channels);
    if (channels != call.channels) {
        throw KernelError("packed: was packed for " + std::to_string(channels) + " input channels, x has " +
                              std::to_string(call.channels),
                          "x with " + std::to_string(channels) + " channels", repack);
    }
}

// The same memory with the channels last.
TensorView channels_last(const TensorView& x) {
    TensorView view = x;
    constexpr int order[] = {0, 2, 3, 1};
    for (int i = 0; i < 4; ++i) {
        view.shape[i] = x.shape[order[i]];
        view.strides[i] = x.strides[order[i]];
    }
    return view;
}

// Takes x in channels_last, and returns y in it.
template <WeightCoding coding>
nb::object run(nb::handle x_object, nb::handle packed_object, nb::handle scales_object, nb::handle bias_object,
               const Pair& kernel_size, const Pair& stride, const Pair& padding, const Pair& dilation,
               std::string_view activation, int threads) {
    const TensorView given = view_tensor(x_object, "x");
    const TensorView packed = view_tensor(packed_object, "packed");
    const TensorView scales = view_tensor(scales_object, coding == WeightCoding::int8 ? "scales" : "gammas");

    ConvolutionCall call{};
    call.coding = coding;
    call.activation = parse_activation(activation);
    require_range("kernel_size", kernel_size, 1);
    require_range("stride", stride, 1);
    require_range("padding", padding, 0);
    require_range("dilation", dilation, 1);
    if (given.dimensions != 4 || (given.dtype != DataType::float32 && given.dtype != DataType::bfloat16)) {
        throw KernelError("x: has shape " + given.shape_text() + " or a dtype that cannot be used",
                          "(images, channels, height, width) in float32 or bfloat16",
                          "convert it with tensor.to(torch.float32)");
    }
    const TensorView x = channels_last(given);
    call.element = x.dtype == DataType::float32 ? Element::float32 : Element::bfloat16;
    call.images = x.shape[0];
    call.vertical = {x.shape[1], kernel_size[0], stride[0], padding[0], dilation[0]};
    call.horizontal = {x.shape[2], kernel_size[1], stride[1], padding[1], dilation[1]};
    call.channels = x.shape[3];
    if (call.channels < 1 || call.vertical.out() < 1 || call.horizontal.out() < 1) {
        throw KernelError("x: has " + std::to_string(call.channels) + " channels of " +
                              std::to_string(call.vertical.size) + " x " + std::to_string(call.horizontal.size),
                          "at least one channel, and images that with their padding are no smaller than the kernel",
                          "pass the inputs of that layer");
    }
    const std::int64_t depth = kernel_size[0] * kernel_size[1] * ceil_div(call.channels, group_depth) * group_depth;
    if (depth > max_depth) {
        throw KernelError("packed: an output is the sum of " + std::to_string(depth) + " products",
                          "at most 131072, so that 32-bit sums cannot overflow", "keep this layer in float32");
    }
    x.require_contiguous();

    scales.require_dtype(DataType::float32);
    call.out_channels = scales.dimensions == 1 ? scales.shape[0] : -1;
    require_sizes(scales, {call.out_channels});
    scales.require_contiguous();
    require_packed(call, packed);
    if (!bias_object.is_none()) {
        const TensorView bias = view_tensor(bias_object, "bias");
        bias.require_dtype(DataType::float32);
        require_sizes(bias, {call.out_channels});
        bias.require_contiguous();
        call.bias = static_cast<const float*>(bias.data);
    }
    if (threads < 1) {
        throw KernelError("threads: got " + std::to_string(threads), "1 or more", "pass torch.get_num_threads()");
    }

    TensorView like = x;
    like.shape[1] = call.vertical.out();
    like.shape[2] = call.horizontal.out();
    constexpr int order[] = {0, 3, 1, 2};
    NewTensor y = new_tensor(x_object, like, call.out_channels, order);
    call.x = x.data;
    call.y = y.data;
    call.packed = static_cast<const std::int8_t*>(packed.data);
    call.scales = static_cast<const float*>(scales.data);
    if (x.elements() * call.out_channels < multiply_adds_to_release) {
        convolution(call, threads);
    } else {
        nb::gil_scoped_release released;
        convolution(call, threads);
    }
    return std::move(y.object);
}

template <WeightCoding coding>
void bind(nb::module_& module, const char* name, const char* scales) {
    module.def(name, &run<coding>, nb::arg("x").none(), nb::arg("packed").none(), nb::arg(scales).none(),
               nb::arg("bias").none(), nb::arg("kernel_size"), nb::arg("stride"), nb::arg("padding"),
               nb::arg("dilation"), nb::arg("activation"), nb::arg("threads"));
}

}  // namespace

void bind_convolution(nb::module_& module) {
    bind<WeightCoding::int8>(module, "int8_convolution", "scales");
    bind<WeightCoding::vectors>(module, "vector_convolution", "gammas");
}

}  // namespace taut
