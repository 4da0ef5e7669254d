#include "vm/library.h"

#include <dlfcn.h>

#include "vm/kernel_message.h"
#include "vm/program.h"

namespace taut::vm {
namespace {

using ErrorHandler = void (*)(const char* message);

void keep_message(const char* message) { report_kernel_error(message); }

}  // namespace

void* open_library(const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        const char* reason = dlerror();
        throw LoadError({Fault::kernel, path + " cannot be loaded: " + (reason != nullptr ? reason : "no reason given"),
                         "a shared library of generated kernels for this machine", "compile the program again"});
    }
    if (void* set = dlsym(library, "taut_set_error_handler"); set != nullptr) {
        reinterpret_cast<void (*)(ErrorHandler)>(set)(&keep_message);
    }
    return library;
}

void* find_symbol(void* library, const std::string& name) {
    void* address = dlsym(library, name.c_str());
    if (address == nullptr) {
        throw LoadError({Fault::kernel, "the library of generated kernels has no function " + name,
                         "a library generated for this program", "compile the program again"});
    }
    return address;
}

}  // namespace taut::vm
