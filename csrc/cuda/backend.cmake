# The CUDA backend's place in the build. There are no kernels yet: MIPRUNER_CUDA only says whether
# nvcc is there, and the core answers CUDA tensors with an error.
set(mipruner_cuda_state OFF)
if(NOT MIPRUNER_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(mipruner_cuda_state
      "OFF (${CMAKE_CUDA_COMPILER} found, but this version has no CUDA kernels yet)")
  elseif(MIPRUNER_CUDA STREQUAL "ON")
    message(FATAL_ERROR
      "MIPRUNER_CUDA: got ON, but no CUDA compiler was found; put nvcc on the PATH or set CUDACXX, "
      "or use MIPRUNER_CUDA=AUTO or OFF")
  else()
    set(mipruner_cuda_state "OFF (no CUDA compiler found)")
  endif()
endif()
