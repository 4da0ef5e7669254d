// Reads the name of an activation.
#pragma once

#include <string>
#include <string_view>

#include "bindings/kernel_error.h"
#include "int8_linear/int8_linear.h"

namespace taut {

inline Activation parse_activation(std::string_view text) {
    if (text == "none") return Activation::none;
    if (text == "relu") return Activation::relu;
    if (text == "gelu") return Activation::gelu;
    throw KernelError("activation: got '" + std::string(text) + "'", "'none', 'relu' or 'gelu'",
                      "apply other activations to the result");
}

}  // namespace taut
