// Shared libraries of generated kernels.
#pragma once

#include <string>

namespace taut::vm {

// Opens a library, which stays for good: its threads may be running. Throws LoadError.
void* open_library(const std::string& path);
// The address of a symbol; throws LoadError when there is none.
void* find_symbol(void* library, const std::string& name);

}  // namespace taut::vm
