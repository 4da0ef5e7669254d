// The Python module taut.kernels._native.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <new>

#include "bindings/bindings.h"
#include "bindings/kernel_error.h"
#include "bindings/tensor_view.h"
#include "common/isa.h"

namespace nb = nanobind;

namespace taut {
namespace {

void set_python_error(const KernelError& error) {
    const nb::object type = nb::module_::import_("taut.errors").attr("KernelError");
    const nb::object value = type(error.message.c_str(), nb::arg("expected") = error.expected.c_str(),
                                  nb::arg("fix") = error.fix.c_str());
    PyErr_SetObject(type.ptr(), value.ptr());
}

void translate(const std::exception_ptr& exception, void*) {
    try {
        std::rethrow_exception(exception);
    } catch (const KernelError& error) {
        set_python_error(error);
    } catch (const std::bad_alloc&) {
        set_python_error({"a native kernel ran out of memory", "enough memory", "close other programs"});
    }
}

nb::tuple available_isas() {
    nb::list names;
    for (int i = 0; i < isa_count; ++i) {
        if (isa_available(static_cast<Isa>(i))) names.append(isa_name(static_cast<Isa>(i)));
    }
    return nb::tuple(names);
}

void set_active(std::string_view name) {
    for (int i = 0; i < isa_count; ++i) {
        const Isa isa = static_cast<Isa>(i);
        if (name == isa_name(isa) && isa_available(isa)) return set_active_isa(isa);
    }
    std::string available;
    for (const nb::handle isa : available_isas()) available += (available.empty() ? "" : ", ") + nb::cast<std::string>(isa);
    throw KernelError("isa: got '" + std::string(name) + "'", "one of " + available,
                      "choose an instruction set that this processor has");
}

}  // namespace
}  // namespace taut

NB_MODULE(_native, module) {
    module.doc() = "Native kernels of taut.";
    nb::register_exception_translator(taut::translate);
    module.def("available_isas", &taut::available_isas);
    module.def("active_isa", [] { return taut::isa_name(taut::active_isa()); });
    module.def("set_active_isa", &taut::set_active, nb::arg("name"));
    module.def("bind_tensor_type", &taut::bind_tensor_type, nb::arg("tensor_type"), nb::arg("exchange"));
    taut::bind_convolution(module);
    taut::bind_int8_linear(module);
    taut::bind_peaks(module);
    taut::bind_recurrent(module);
    taut::bind_selection(module);
    taut::bind_signal(module);
    taut::bind_vector_linear(module);
}
