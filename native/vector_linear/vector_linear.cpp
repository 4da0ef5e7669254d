// Chooses how the weights are read: folded in registers for few rows, expanded once for many.
#include "vector_linear/vector_linear.h"

namespace taut {
namespace {

const VectorLinearKernels& kernels_of(Isa isa) {
#ifdef TAUT_X86
    if (isa == Isa::avx512_vnni) return vector_linear_avx512_vnni;
    if (isa == Isa::avx2) return vector_linear_avx2;
#endif
    (void)isa;
    return vector_linear_scalar;
}

}  // namespace

void vector_linear(Int8LinearCall call, Inputs inputs, int threads) {
    const std::int64_t vectors = block_vectors(call.depth);
    call.groups = vectors * vector_groups;
    call.block_stride = block_bytes(vectors) + trailer_groups * group_bytes;
    const Isa isa = active_isa();
    const VectorLinearKernels& vector_kernels = kernels_of(isa);
    Int8LinearKernels kernels = int8_linear_kernels(isa);
    if (inputs == Inputs::vsq4) kernels.quantise = vector_kernels.quantise;
    if (call.rows <= vector_kernels.few_rows) {
        kernels.tile = vector_kernels.tile;
        kernels.tile_rows = vector_kernels.tile_rows;
    } else {
        kernels.expand = vector_kernels.expand;
    }
    run_linear(call, kernels, threads);
}

}  // namespace taut
