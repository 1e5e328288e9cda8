// Launching a kernel: one function for devices and for the emulation.
#pragma once

#include <cstddef>

#include "core/types.h"
#include "cuda/common/device.h"

namespace mipruner::cuda {

// One dimension of a grid, whose size has been checked.
inline unsigned as_grid(int64_t blocks) { return static_cast<unsigned>(blocks); }

#if defined(__CUDACC__)

// The failing call's own code as a status. Also clears the runtime's last error: the caller learns
// of this failure by the status, and the next user of the runtime must not find it.
inline Status launch_error(const char* what, cudaError_t code) {
  (void)cudaGetLastError();
  if (code == cudaErrorNoKernelImageForDevice) {
    return error(StatusCode::kBackend,
                 "%s: this build has no code for the device's architecture; build again with "
                 "CMAKE_ARGS=-DCMAKE_CUDA_ARCHITECTURES=native",
                 what);
  }
  return error(StatusCode::kBackend, "%s: %s", what, cudaGetErrorString(code));
}

// Launches `kernel` on `stream` (a cudaStream_t). A grid with nothing in it is not an error. Uses
// the launch's own return code, not cudaGetLastError, which may be an earlier caller's failure.
template <class... Parameters, class... Arguments>
Status launch(const char* what, void (*kernel)(Parameters...), dim3 grid, int block,
              size_t shared_bytes, void* stream, Arguments... arguments) {
  constexpr size_t kSharedWithoutAsking = 48 * 1024;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return Status{};
  if (shared_bytes > kSharedWithoutAsking) {
    const cudaError_t code = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (code != cudaSuccess) return launch_error(what, code);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(block));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  const cudaError_t code =
      cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  return code == cudaSuccess ? Status{} : launch_error(what, code);
}

#else

template <class... Parameters, class... Arguments>
Status launch(const char* what, void (*kernel)(Parameters...), dim3 grid, int block,
              size_t shared_bytes, void* /*stream*/, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return Status{};
  const auto body = [=] { kernel(static_cast<Parameters>(arguments)...); };
  if (::emu::launch(grid, dim3(static_cast<unsigned>(block)), shared_bytes, body)) return Status{};
  return error(StatusCode::kBackend, "%s: %s", what, ::emu::stats().last_message);
}

#endif

}  // namespace mipruner::cuda
