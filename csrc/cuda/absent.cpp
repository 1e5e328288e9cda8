// What stands in for the CUDA backend in a build without it: no kernels and an answer that says so.
// Compiled only there, so that such a library names no CUDA symbol at all.
#include "cuda/backend.h"
#include "cuda/memory.h"

namespace mipruner {

bool has_cuda() { return false; }

namespace cuda {
namespace {

// The dispatch has already refused the device; this is for a caller that has not asked it.
Status not_built() {
  return error(StatusCode::kNotSupported, "device: this build has no CUDA kernels");
}

}  // namespace

Status normalize(const MatrixView&, float, void*, void*) { return not_built(); }

size_t mutual_information_workspace_bytes(const RelevanceProblem&) { return 0; }
Status mutual_information(const RelevanceProblem&, float*, Workspace, void*) { return not_built(); }

Status top_k(const ScoresView&, int64_t, float*, int64_t*, void*) { return not_built(); }

size_t select_workspace_bytes(const SelectProblem&) { return 0; }
Status select(const SelectProblem&, int64_t*, float*, Workspace, void*) { return not_built(); }

size_t select_varlen_workspace_bytes(const SelectVarlenProblem&) { return 0; }
Status select_varlen(const SelectVarlenProblem&, int64_t*, float*, Workspace, void*) {
  return not_built();
}

Status gather_rows(const GatherProblem&, void*, void*) { return not_built(); }

Status count_devices(int* count) {
  *count = 0;
  return not_built();
}

Status DeviceScope::enter(int) { return not_built(); }
DeviceScope::~DeviceScope() = default;

Status allocate(size_t, void**) { return not_built(); }
void release(void*) {}
Status copy_to_host(void*, const void*, size_t, void*) { return not_built(); }
Status copy_to_device(void*, const void*, size_t, void*) { return not_built(); }

}  // namespace cuda
}  // namespace mipruner
