#include "vm/kernels/prebuilt.h"

namespace taut::vm {

const Prebuilt* find_prebuilt(std::string_view name) {
    for (const Prebuilt* kernel : {&embedding_kernel, &nonzero_kernel, &arange_kernel, &cast_kernel, &fill_kernel,
                                   &argmax_kernel, &nms_kernel}) {
        if (name == kernel->name) return kernel;
    }
    for (const Prebuilt& kernel : recurrent_kernels) {
        if (name == kernel.name) return &kernel;
    }
    for (const Prebuilt& kernel : quantised_kernels) {
        if (name == kernel.name) return &kernel;
    }
    return nullptr;
}

}  // namespace taut::vm
