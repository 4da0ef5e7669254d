// What each kernel family adds to the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace taut {

void bind_convolution(nanobind::module_& module);
void bind_int8_linear(nanobind::module_& module);
void bind_peaks(nanobind::module_& module);
void bind_recurrent(nanobind::module_& module);
void bind_selection(nanobind::module_& module);
void bind_signal(nanobind::module_& module);
void bind_vector_linear(nanobind::module_& module);

}  // namespace taut
