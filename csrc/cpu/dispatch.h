// Which instruction set's kernels run.
#pragma once

#include "cpu/simd/kernels.h"

namespace mipruner::cpu {

// The kernels in use: the newest level that is compiled in and that this processor supports, found
// once, or the one that the environment variable MIPRUNER_CPU_LEVEL names. An error if that level
// is not available.
Status active_kernels(const Kernels** kernels);

// Replaces the choice, for tests that run every level in one process. nullptr: choose anew.
Status set_level(const char* level);

// Comma separated, lowest first; the emulated level, which is never chosen by itself, comes last.
const char* available_levels();

}  // namespace mipruner::cpu
