// Linear layers with integer weights: what native/int8_linear and native/vector_linear compute, for the machine.
#include <cstring>
#include <initializer_list>
#include <new>

#include "vector_linear/vector_linear.h"
#include "vm/kernel_message.h"
#include "vm/kernels/operands.h"
#include "vm/kernels/prebuilt.h"

namespace taut::vm {
namespace {

enum class Coding { int8, w4a8, w4a4 };

bool is_contiguous(const Buffer& buffer, std::initializer_list<std::int64_t> sizes) {
    if (buffer.dimensions != static_cast<int>(sizes.size())) return false;
    std::int64_t stride = 1;
    int dim = 0;
    for (auto size = std::rbegin(sizes); size != std::rend(sizes); ++size, ++dim) {
        if (buffer.dim[dim].extent != *size || (*size > 1 && buffer.dim[dim].stride != stride)) return false;
        stride *= *size;
    }
    return true;
}

// The number of input features that the trailer of the first block names.
bool has_depth(const std::int8_t* packed, std::int64_t trailer, std::int64_t depth) {
    std::int32_t found;
    std::memcpy(&found, packed + trailer + group_bytes, sizeof found);
    return found == depth;
}

template <Coding coding, Activation activation>
int run(void** arguments) {
    const Buffer& x = operand(arguments, 0);
    const Buffer& packed = operand(arguments, 1);
    const Buffer& scales = operand(arguments, 2);
    const Buffer& bias = operand(arguments, 3);
    const Buffer& y = operand(arguments, 4);
    Int8LinearCall call{};
    call.rows = x.dim[1].extent;
    call.depth = x.dim[0].extent;
    call.channels = y.dim[0].extent;
    call.activation = activation;
    call.element = Element::float32;
    const std::int64_t blocks = (call.channels + block_channels - 1) / block_channels;
    const std::int64_t groups = (call.depth + group_depth - 1) / group_depth;
    const std::int64_t bytes =
        coding == Coding::int8 ? groups * group_bytes : block_bytes(block_vectors(call.depth));
    const bool fits = coding == Coding::int8
                          ? is_contiguous(packed, {blocks, groups + trailer_groups, block_channels, group_depth})
                          : is_contiguous(packed, {blocks, bytes + trailer_groups * group_bytes});
    if (call.depth > max_depth || !fits || !is_contiguous(x, {call.rows, call.depth}) ||
        !is_contiguous(y, {call.rows, call.channels}) || !is_contiguous(scales, {call.channels}) ||
        !is_contiguous(bias, {call.channels})) {
        return report_kernel_error("the shapes of a quantised linear layer do not fit each other");
    }
    call.x = x.host;
    call.y = y.host;
    call.packed = reinterpret_cast<const std::int8_t*>(packed.host);
    call.scales = reinterpret_cast<const float*>(scales.host);
    call.bias = reinterpret_cast<const float*>(bias.host);
    if (call.channels != 0 && !has_depth(call.packed, bytes, call.depth)) {
        return report_kernel_error("the weights were packed for another number of input features");
    }
    try {
        if constexpr (coding == Coding::int8) {
            int8_linear(call, 1);
        } else {
            vector_linear(call, coding == Coding::w4a8 ? Inputs::int8 : Inputs::vsq4, 1);
        }
    } catch (const std::bad_alloc&) {
        return report_kernel_error("memory is exhausted");
    }
    return 0;
}

template <int packed_rank>
bool fits(const std::vector<OperandType>& operands) {
    constexpr int ranks[] = {2, packed_rank, 1, 1, 2};
    if (operands.size() != 5) return false;
    for (int i = 0; i < 5; ++i) {
        const DType wanted = i == 1 ? DType::int8 : DType::float32;
        if (operands[i].dtype != wanted || operands[i].rank != ranks[i] || operands[i].written != (i == 4)) return false;
    }
    return true;
}

constexpr const char* int8_operands = "x (M, K), packed int8 (B, G, 16, 4), scales (N), bias (N), y (M, N)";
constexpr const char* vector_operands = "x (M, K), packed int8 (B, bytes), gammas (N), bias (N), y (M, N)";

}  // namespace

const Prebuilt quantised_kernels[quantised_kernel_count] = {
    {"int8_linear_none", &run<Coding::int8, Activation::none>, &fits<4>, int8_operands},
    {"int8_linear_relu", &run<Coding::int8, Activation::relu>, &fits<4>, int8_operands},
    {"int8_linear_gelu", &run<Coding::int8, Activation::gelu>, &fits<4>, int8_operands},
    {"w4a8_linear_none", &run<Coding::w4a8, Activation::none>, &fits<2>, vector_operands},
    {"w4a8_linear_relu", &run<Coding::w4a8, Activation::relu>, &fits<2>, vector_operands},
    {"w4a8_linear_gelu", &run<Coding::w4a8, Activation::gelu>, &fits<2>, vector_operands},
    {"w4a4_linear_none", &run<Coding::w4a4, Activation::none>, &fits<2>, vector_operands},
    {"w4a4_linear_relu", &run<Coding::w4a4, Activation::relu>, &fits<2>, vector_operands},
    {"w4a4_linear_gelu", &run<Coding::w4a4, Activation::gelu>, &fits<2>, vector_operands},
};

}  // namespace taut::vm
