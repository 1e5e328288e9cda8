// Calls of the CUDA runtime, which a C++ compiler understands: no kernel is here.
#include "cuda/memory.h"

#include <cuda_runtime_api.h>

namespace mipruner::cuda {

namespace {

// Also clears the runtime's last error: the caller learns of this failure by the status, and the
// next user of the runtime must not find it.
Status checked(const char* what, cudaError_t code) {
  if (code == cudaSuccess) return {};
  (void)cudaGetLastError();
  return error(StatusCode::kBackend, "%s: %s", what, cudaGetErrorString(code));
}

Status copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  Status status = checked("cudaMemcpyAsync", cudaMemcpyAsync(to, from, bytes, kind, on));
  if (!status.ok()) return status;
  return checked("cudaStreamSynchronize", cudaStreamSynchronize(on));
}

}  // namespace

Status count_devices(int* count) {
  Status status = checked("cudaGetDeviceCount", cudaGetDeviceCount(count));
  if (!status.ok()) *count = 0;
  return status;
}

Status DeviceScope::enter(int device) {
  Status status = checked("cudaGetDevice", cudaGetDevice(&previous_));
  if (status.ok()) status = checked("cudaSetDevice", cudaSetDevice(device));
  return status;
}

DeviceScope::~DeviceScope() {
  if (previous_ >= 0) (void)cudaSetDevice(previous_);
}

Status allocate(size_t bytes, void** memory) {
  const cudaError_t code = cudaMalloc(memory, bytes);
  if (code == cudaSuccess) return {};
  *memory = nullptr;
  if (code != cudaErrorMemoryAllocation) return checked("cudaMalloc", code);
  (void)cudaGetLastError();
  return error(StatusCode::kOutOfMemory, "out of memory: %zu bytes of scratch memory on the device",
               bytes);
}

void release(void* memory) {
  if (memory) (void)cudaFree(memory);
}

Status copy_to_host(void* host, const void* device, size_t bytes, void* stream) {
  return copy(host, device, bytes, cudaMemcpyDeviceToHost, stream);
}

Status copy_to_device(void* device, const void* host, size_t bytes, void* stream) {
  return copy(device, host, bytes, cudaMemcpyHostToDevice, stream);
}

}  // namespace mipruner::cuda
