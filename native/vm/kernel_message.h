// What a kernel says about its failure, kept for the thread that called it.
#pragma once

#include <string>

namespace taut::vm {

// Remembers the message; returns 1, the code of a failed kernel.
int report_kernel_error(const char* message);
// The last message, which is forgotten.
std::string take_kernel_error();

}  // namespace taut::vm
