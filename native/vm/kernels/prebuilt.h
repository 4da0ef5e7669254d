// Kernels that are not generated, by name.
#pragma once

#include <string_view>
#include <vector>

#include "vm/program.h"

namespace taut::vm {

struct Prebuilt {
    const char* name;
    KernelFunction function;
    // Whether the kernel takes operands of these types.
    bool (*fits)(const std::vector<OperandType>& operands);
    const char* expected;
};

// Null when there is none of that name.
const Prebuilt* find_prebuilt(std::string_view name);

// embedding(table (N, D), index int64 (...), out (..., D)); an index outside the table is an error.
extern const Prebuilt embedding_kernel;
// nonzero(x (...), out int64 (capacity, rank), count int64 (1)): the positions of the first `count` rows of out.
extern const Prebuilt nonzero_kernel;
// arange(start (), step (), out (N)).
extern const Prebuilt arange_kernel;
// cast(x, out) of equal shape; to integers towards zero, to bool whether it is not 0.
extern const Prebuilt cast_kernel;
// fill(value (), out).
extern const Prebuilt fill_kernel;
// argmax(x float32 (..., N), out int64 (...)): the first largest; a NaN counts as the largest.
extern const Prebuilt argmax_kernel;
// nms(boxes float32 (N, 4), scores float32 (N), threshold float32 (), out int64 (N), count int64 (1)): indices of the
// kept boxes (x1, y1, x2, y2) in the order of descending scores, as torchvision.ops.nms gives them.
extern const Prebuilt nms_kernel;
// Layers of native/recurrent with weights packed as there, one direction each: "lstm", "gru", "rnn_tanh", "rnn_relu",
// the same with "_reverse", and "small_linear" with "", "_relu", "_tanh", "_sigmoid".
inline constexpr int recurrent_kernel_count = 12;
extern const Prebuilt recurrent_kernels[recurrent_kernel_count];
// Layers of native/int8_linear and native/vector_linear with weights packed as there: "int8_linear", "w4a8_linear" and
// "w4a4_linear", each with "_none", "_relu" and "_gelu".
inline constexpr int quantised_kernel_count = 9;
extern const Prebuilt quantised_kernels[quantised_kernel_count];

}  // namespace taut::vm
