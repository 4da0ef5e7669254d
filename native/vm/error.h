// Failures of a call. Nothing throws while a program runs: functions return false with the error filled in.
#pragma once

#include <string>
#include <utility>

namespace taut::vm {

enum class Fault {
    guard,    // an input, or a check of the program
    program,  // the program does what it may not do
    kernel,   // a kernel reported an error
    memory,   // an allocation beyond the limit
    host,     // the callback of the embedding language failed and holds the reason
};

struct Error {
    Fault fault = Fault::program;
    std::string message;
    std::string expected;
    std::string fix;

    // For `return error.set(...)`.
    bool set(Fault kind, std::string text, std::string wanted = {}, std::string remedy = {}) {
        fault = kind;
        message = std::move(text);
        expected = std::move(wanted);
        fix = std::move(remedy);
        return false;
    }
};

}  // namespace taut::vm
