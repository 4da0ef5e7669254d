#include "int8_linear/vector_avx2.h"
#include "recurrent/panels.h"

namespace taut {

constinit const RecurrentKernels recurrent_avx2 = recurrent_kernels<Vector, 3>();

}  // namespace taut
