# `_ops`: the torch door. It uses the LibTorch stable ABI alone, so one binary serves every torch >=
# 2.11, whatever torch's headers it was compiled with.
set(mipruner_torch_state OFF)
if(MIPRUNER_TORCH STREQUAL "OFF")
  return()
endif()

# Prints "<folder>;<version>", or ";<the reason why there is none>".
mipruner_ask_python(torch_answer ${CMAKE_CURRENT_LIST_DIR}/find_torch.py "${MIPRUNER_TORCH_DIR}")
list(GET torch_answer 0 torch_dir)
list(GET torch_answer 1 torch_detail)
if(NOT torch_dir)
  if(MIPRUNER_TORCH_DIR)
    message(FATAL_ERROR "MIPRUNER_TORCH_DIR: ${torch_detail}")
  elseif(MIPRUNER_TORCH STREQUAL "ON")
    message(FATAL_ERROR "MIPRUNER_TORCH: got ON, but ${torch_detail}")
  endif()
  set(mipruner_torch_state "OFF (${torch_detail})")
  message(WARNING
    "Building without the torch ops: ${torch_detail}. The NumPy functions will work, "
    "torch.ops.mipruner will not exist. Install torch>=2.11 first, or set MIPRUNER_TORCH_DIR to "
    "its package folder.")
  return()
endif()
set(mipruner_torch_state "ON (headers of torch ${torch_detail})")

add_library(_ops MODULE csrc/torch/ops.cpp)
set_target_properties(_ops PROPERTIES
  PREFIX ""
  # Beside the package in site-packages. An editable install has no such neighbour and needs none:
  # torch is already loaded when it loads this library.
  BUILD_RPATH "$ORIGIN/../torch/lib"
  BUILD_RPATH_USE_ORIGIN ON)
target_include_directories(_ops SYSTEM PRIVATE ${torch_dir}/include)
target_compile_definitions(_ops PRIVATE TORCH_TARGET_VERSION=0x020b000000000000)  # 2.11
target_link_libraries(_ops PRIVATE mipruner_core)
target_link_options(_ops PRIVATE -Wl,--exclude-libs,ALL -L${torch_dir}/lib
  # libtorch.so itself must stay a dependency though nothing here names it: on a CUDA build of torch
  # it is what brings libtorch_cuda.so, and with it the stream functions, into reach.
  -Wl,--no-as-needed -ltorch -ltorch_cpu -Wl,--as-needed)
