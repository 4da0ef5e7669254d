#include "int8_linear/vector_avx512.h"
#include "recurrent/panels.h"

namespace taut {

constinit const RecurrentKernels recurrent_avx512_vnni = recurrent_kernels<Vector, 6>();

}  // namespace taut
