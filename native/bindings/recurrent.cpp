// Checks the arguments of the recurrent and small linear kernels and calls them.
#include "recurrent/recurrent.h"

#include <nanobind/stl/string_view.h>

#include <string>
#include <string_view>

#include "bindings/bindings.h"
#include "bindings/kernel_error.h"
#include "bindings/tensor_view.h"

namespace nb = nanobind;

namespace taut {
namespace {

constexpr const char* cell_names[cell_count] = {"lstm", "gru", "tanh", "relu"};
constexpr const char* activation_names[linear_activation_count] = {"none", "relu", "tanh", "sigmoid"};

template <int count>
int find_name(const char* argument, std::string_view text, const char* const (&names)[count]) {
    std::string expected;
    for (int i = 0; i < count; ++i) {
        if (text == names[i]) return i;
        expected += (i == 0 ? "'" : ", '") + std::string(names[i]) + "'";
    }
    throw KernelError(std::string(argument) + ": got '" + std::string(text) + "'", "one of " + expected,
                      "pass one of these names");
}

float* read(nb::handle object, const char* name, std::initializer_list<std::int64_t> shape) {
    const TensorView view = view_tensor(object, name);
    view.require_dtype(DataType::float32);
    view.require_shape(shape);
    view.require_contiguous();
    return static_cast<float*>(view.data);
}

float* read_optional(nb::handle object, const char* name, std::initializer_list<std::int64_t> shape) {
    return object.is_none() ? nullptr : read(object, name, shape);
}

TensorView read_input(nb::handle object, int dimensions) {
    TensorView x = view_tensor(object, "x");
    x.require_dtype(DataType::float32);
    x.require_contiguous();
    if (x.dimensions != dimensions) {
        throw KernelError("x: has shape " + x.shape_text(), std::to_string(dimensions) + " dimensions", "reshape it");
    }
    return x;
}

std::int64_t last_size(nb::handle object, const char* name) {
    const TensorView view = view_tensor(object, name);
    if (view.dimensions == 0) throw KernelError(std::string(name) + ": has no dimensions", "a matrix", "reshape it");
    return view.shape[view.dimensions - 1];
}

void run_recurrent(std::string_view cell, nb::handle x_object, nb::handle input_weights, nb::handle hidden_weights,
                   nb::handle bias, nb::handle hidden_bias, nb::handle h0, nb::handle c0, nb::handle y_object,
                   std::int64_t column, nb::handle h, nb::handle c, bool reverse, int threads) {
    RecurrentCall call{};
    call.cell = static_cast<Cell>(find_name("cell", cell, cell_names));
    const TensorView x = read_input(x_object, 3);
    call.x = static_cast<const float*>(x.data);
    call.steps = x.shape[0];
    call.batch = x.shape[1];
    call.inputs = x.shape[2];
    call.hidden = last_size(h, "h");
    const std::int64_t panels = panel_count(call.cell, call.hidden);
    const std::int64_t vectors = panel_vectors(call.cell);
    call.input_weights = read(input_weights, "input_weights", {panels, call.inputs, vectors, panel_lanes});
    call.hidden_weights = read(hidden_weights, "hidden_weights", {panels, call.hidden, vectors, panel_lanes});
    call.bias = read(bias, "bias", {panels, vectors, panel_lanes});
    if (call.cell == Cell::gru) call.hidden_bias = read(hidden_bias, "hidden_bias", {panels, vectors, panel_lanes});
    call.h0 = read_optional(h0, "h0", {call.batch, call.hidden});
    call.h = read(h, "h", {call.batch, call.hidden});
    if (call.cell == Cell::lstm) {
        call.c0 = read_optional(c0, "c0", {call.batch, call.hidden});
        call.c = read(c, "c", {call.batch, call.hidden});
    }
    call.y_stride = last_size(y_object, "y");
    if (column < 0 || column + call.hidden > call.y_stride) {
        throw KernelError("column: got " + std::to_string(column), "0 or the number of hidden units",
                          "let y hold all directions side by side");
    }
    call.y = read(y_object, "y", {call.steps, call.batch, call.y_stride}) + column;
    call.reverse = reverse;
    const nb::gil_scoped_release released;
    recurrent(call, threads);
}

void run_small_linear(nb::handle x_object, nb::handle packed, nb::handle bias, std::string_view activation,
                      nb::handle y_object) {
    SmallLinearCall call{};
    call.activation = static_cast<LinearActivation>(find_name("activation", activation, activation_names));
    const TensorView x = read_input(x_object, 2);
    call.x = static_cast<const float*>(x.data);
    call.rows = x.shape[0];
    call.depth = x.shape[1];
    call.channels = call.y_stride = last_size(y_object, "y");
    const std::int64_t panels = panel_count(Cell::tanh, call.channels);
    call.packed = read(packed, "packed", {panels, call.depth, 4, panel_lanes});
    call.bias = read(bias, "bias", {panels, 4, panel_lanes});
    call.y = read(y_object, "y", {call.rows, call.channels});
    const nb::gil_scoped_release released;
    small_linear(call);
}

}  // namespace

void bind_recurrent(nb::module_& module) {
    module.def("recurrent", &run_recurrent, nb::arg("cell"), nb::arg("x").none(), nb::arg("input_weights").none(),
               nb::arg("hidden_weights").none(), nb::arg("bias").none(), nb::arg("hidden_bias").none(),
               nb::arg("h0").none(), nb::arg("c0").none(), nb::arg("y").none(), nb::arg("column"), nb::arg("h").none(),
               nb::arg("c").none(), nb::arg("reverse"), nb::arg("threads"));
    module.def("small_linear", &run_small_linear, nb::arg("x").none(), nb::arg("packed").none(), nb::arg("bias").none(),
               nb::arg("activation"), nb::arg("y").none());
}

}  // namespace taut
