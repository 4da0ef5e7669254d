// Checks the arguments of the signals between processes and calls them.
#include "signal/signal.h"

#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/kernel_error.h"
#include "bindings/tensor_view.h"

namespace nb = nanobind;

namespace taut {
namespace {

void* read_signal(nb::handle object) {
    const TensorView view = view_tensor(object, "signal");
    view.require_dtype(DataType::int32);
    view.require_shape({signal_bytes / 4});
    view.require_contiguous();
    return view.data;
}

void run_raise_signal(nb::handle signal, std::uint32_t number) {
    void* raised = read_signal(signal);
    const nb::gil_scoped_release released;
    raise_signal(raised, number);
}

int run_wait_for_signal(nb::list signals, std::uint32_t number, double seconds, double spin_seconds) {
    if (signals.size() == 0) throw KernelError("signals: got none", "one or more", "do not wait");
    // Not so long that a count of seconds overflows, nor so long that an interrupt waits for it.
    if (!(seconds >= 0.0 && seconds <= 60.0)) {
        throw KernelError("seconds: got " + std::to_string(seconds), "0 to 60", "wait several times");
    }
    std::vector<void*> awaited;
    for (const nb::handle signal : signals) awaited.push_back(read_signal(signal));
    const nb::gil_scoped_release released;
    return wait_for_signal(awaited.data(), static_cast<int>(awaited.size()), number, seconds, spin_seconds);
}

}  // namespace

void bind_signal(nb::module_& module) {
    module.def("raise_signal", &run_raise_signal, nb::arg("signal").none(), nb::arg("number"));
    module.def("wait_for_signal", &run_wait_for_signal, nb::arg("signals"), nb::arg("number"), nb::arg("seconds"),
               nb::arg("spin_seconds"));
    module.attr("signal_bytes") = signal_bytes;
}

}  // namespace taut
