// Operators new and delete in place of the C++ library's, for programs that run out of memory when
// a test says so.
#pragma once

#include <cstdint>

namespace mipruner::tests {

// From now on allocations are counted, and the n-th fails.
void fail_allocation(int64_t n);
// Counts no more; returns how many there were.
int64_t stop_failing();

}  // namespace mipruner::tests
