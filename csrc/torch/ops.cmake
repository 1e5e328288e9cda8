# `_ops`: the torch door. It uses the LibTorch stable ABI alone, so one binary serves every torch >=
# 2.11, whatever torch's headers it was compiled with.
set(mipruner_torch_state OFF)
if(MIPRUNER_TORCH STREQUAL "OFF")
  return()
endif()

# Prints "<folder>;<version>", or ";<the reason why there is none>".
set(torch_answer ";${mipruner_no_python}")
if(NOT mipruner_no_python)
  mipruner_ask_python(torch_answer torch_trouble
    ${CMAKE_CURRENT_LIST_DIR}/find_torch.py "${MIPRUNER_TORCH_DIR}")
  if(torch_trouble)
    set(torch_answer ";${torch_trouble}")
  endif()
endif()
list(GET torch_answer 0 torch_dir)
list(GET torch_answer 1 torch_detail)
if(NOT torch_dir)
  if(MIPRUNER_TORCH_DIR)
    message(FATAL_ERROR "MIPRUNER_TORCH_DIR: ${torch_detail}")
  elseif(MIPRUNER_TORCH STREQUAL "ON")
    message(FATAL_ERROR "MIPRUNER_TORCH: got ON, but ${torch_detail}")
  endif()
  set(mipruner_torch_state "OFF (${torch_detail})")
  if(TARGET _C)
    message(WARNING
      "Building without the torch ops: ${torch_detail}. The NumPy functions will work, "
      "torch.ops.mipruner will not exist. Install torch>=2.11 first, or set MIPRUNER_TORCH_DIR to "
      "its package folder.")
  endif()
  return()
endif()
set(mipruner_torch_state "ON (headers of torch ${torch_detail})")

add_library(_ops MODULE csrc/torch/ops.cpp)
set_target_properties(_ops PROPERTIES PREFIX "")
target_include_directories(_ops SYSTEM PRIVATE ${torch_dir}/include)
target_compile_definitions(_ops PRIVATE TORCH_TARGET_VERSION=0x020b000000000000)  # 2.11
target_link_libraries(_ops PRIVATE mipruner_core)
mipruner_hide_archives(_ops)
# Beside the package in site-packages. An editable install has no such neighbour and needs none:
# torch is already loaded when it loads this library.
mipruner_link_for_old_glibc(_ops SHARED)  # torch catches its exceptions
mipruner_link_torch(_ops ${torch_dir}/lib ../torch/lib)
