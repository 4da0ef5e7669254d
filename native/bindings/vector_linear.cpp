// Checks the arguments of the linear kernel with 4-bit weights and calls it.
#include "vector_linear/vector_linear.h"

#include <nanobind/stl/string_view.h>

#include <string>

#include "bindings/bindings.h"
#include "bindings/kernel_error.h"
#include "bindings/linear_arguments.h"

namespace nb = nanobind;

namespace taut {
namespace {

Inputs parse_inputs(std::string_view text) {
    if (text == "int8") return Inputs::int8;
    if (text == "vsq4") return Inputs::vsq4;
    throw KernelError("inputs: got '" + std::string(text) + "'", "'int8' or 'vsq4'",
                      "'int8' has one scale a row, 'vsq4' one for each 16 features of it");
}

nb::object run(nb::handle x_object, nb::handle packed_object, nb::handle gammas_object, nb::handle bias_object,
               std::string_view activation, std::string_view inputs_text, int threads) {
    const TensorView x = view_tensor(x_object, "x");
    const TensorView packed = view_tensor(packed_object, "packed");
    const TensorView gammas = view_tensor(gammas_object, "gammas");
    const Inputs inputs = parse_inputs(inputs_text);
    Int8LinearCall call = read_linear_call(x, gammas, bias_object, activation, threads);
    const std::int64_t bytes = block_bytes(block_vectors(call.depth));
    packed.require_dtype(DataType::int8);
    packed.require_shape({(call.channels + block_channels - 1) / block_channels, bytes + trailer_groups * group_bytes});
    packed.require_contiguous();
    call.packed = static_cast<const std::int8_t*>(packed.data);
    require_depth(call, bytes);
    return run_linear_call(x_object, x, call,
                           [=](const Int8LinearCall& it) { vector_linear(it, inputs, threads); });
}

}  // namespace

void bind_vector_linear(nb::module_& module) {
    module.def("vector_linear", &run, nb::arg("x").none(), nb::arg("packed").none(), nb::arg("gammas").none(),
               nb::arg("bias").none(), nb::arg("activation"), nb::arg("inputs"), nb::arg("threads"));
}

}  // namespace taut
