// Compiled with the CUDA backend, in place of absent.cpp.
#include "core/operations.h"

namespace mipruner {

bool has_cuda() { return true; }

}  // namespace mipruner
