// A refusal of arguments, which Python sees as taut.errors.KernelError.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace taut {

struct KernelError : std::exception {
    KernelError(std::string message, std::string expected, std::string fix)
        : message(std::move(message)), expected(std::move(expected)), fix(std::move(fix)) {}
    const char* what() const noexcept override { return message.c_str(); }

    std::string message;
    std::string expected;
    std::string fix;
};

}  // namespace taut
