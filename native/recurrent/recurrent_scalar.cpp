#include "int8_linear/vector_scalar.h"
#include "recurrent/panels.h"

namespace taut {

constinit const RecurrentKernels recurrent_scalar = recurrent_kernels<Vector, 1>();

}  // namespace taut
