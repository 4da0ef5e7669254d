// Checks the arguments of the int8 linear kernel and calls it.
#include "int8_linear/int8_linear.h"

#include <nanobind/stl/string_view.h>

#include "bindings/bindings.h"
#include "bindings/linear_arguments.h"

namespace nb = nanobind;

namespace taut {
namespace {

nb::object run(nb::handle x_object, nb::handle packed_object, nb::handle scales_object, nb::handle bias_object,
               std::string_view activation, int threads) {
    const TensorView x = view_tensor(x_object, "x");
    const TensorView packed = view_tensor(packed_object, "packed");
    const TensorView scales = view_tensor(scales_object, "scales");
    Int8LinearCall call = read_linear_call(x, scales, bias_object, activation, threads);
    const std::int64_t groups = (call.depth + group_depth - 1) / group_depth;
    packed.require_dtype(DataType::int8);
    packed.require_shape({(call.channels + block_channels - 1) / block_channels, groups + trailer_groups,
                          block_channels, group_depth});
    packed.require_contiguous();
    call.packed = static_cast<const std::int8_t*>(packed.data);
    require_depth(call, groups * group_bytes);
    return run_linear_call(x_object, x, call, [threads](const Int8LinearCall& it) { int8_linear(it, threads); });
}

}  // namespace

void bind_int8_linear(nb::module_& module) {
    module.def("int8_linear", &run, nb::arg("x").none(), nb::arg("packed").none(), nb::arg("scales").none(),
               nb::arg("bias").none(), nb::arg("activation"), nb::arg("threads"));
    module.attr("max_depth") = max_depth;
}

}  // namespace taut
