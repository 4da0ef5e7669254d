#include "vector_linear/vector_linear.h"

namespace taut {
namespace {

Int8LinearKernels kernels_for(std::int64_t rows, Inputs inputs) {
#ifdef TAUT_X86
    if (active_isa() == Isa::avx512_vnni) return vector_linear_avx512_vnni(rows, inputs);
    if (active_isa() == Isa::avx2) return vector_linear_avx2(rows, inputs);
#endif
    return vector_linear_scalar(rows, inputs);
}

}  // namespace

void vector_linear(Int8LinearCall call, Inputs inputs, int threads) {
    const std::int64_t vectors = block_vectors(call.depth);
    call.groups = vectors * vector_groups;
    call.block_stride = block_bytes(vectors) + trailer_groups * group_bytes;
    run_linear(call, kernels_for(call.rows, inputs), threads);
}

}  // namespace taut
