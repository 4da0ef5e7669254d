#include "vm/kernel_message.h"

#include <cstring>

namespace taut::vm {
namespace {

thread_local char kernel_error[512] = "";

}  // namespace

int report_kernel_error(const char* message) {
    std::strncpy(kernel_error, message, sizeof(kernel_error) - 1);
    return 1;
}

std::string take_kernel_error() {
    std::string text = kernel_error;
    kernel_error[0] = 0;
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    return text;
}

}  // namespace taut::vm
