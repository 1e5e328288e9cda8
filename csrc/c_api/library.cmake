# libmipruner, the C interface: shared and static for the CPU, and shared with the CUDA backend.
#
# CUDA is a library of its own, so that the one for the CPU needs nothing but the C library. Both
# export the C functions alone (exports.map); the C++ runtime is linked into them.
file(STRINGS csrc/include/mipruner/mipruner.h abi_line REGEX "define MIPRUNER_ABI_VERSION")
string(REGEX MATCH "[0-9]+" mipruner_abi "${abi_line}")

file(GLOB c_api_sources CONFIGURE_DEPENDS csrc/c_api/*.cpp)
add_library(mipruner_c_api OBJECT ${c_api_sources})
target_include_directories(mipruner_c_api PRIVATE csrc/include)
target_link_libraries(mipruner_c_api PRIVATE mipruner_options)

# Adds the library `target`, of TYPE, with the backend KIND.
function(mipruner_add_library target type kind)
  add_library(${target} ${type} $<TARGET_OBJECTS:mipruner_c_api> ${mipruner_cpu_objects})
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:mipruner_options> Threads::Threads)
  mipruner_add_backend(${target} ${kind})
  target_include_directories(${target} INTERFACE
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/csrc/include>)
  if(type STREQUAL "SHARED")
    set_target_properties(${target} PROPERTIES SOVERSION ${mipruner_abi})
    mipruner_export_c_functions(${target})
    mipruner_link_for_old_glibc(${target} STATIC)
  else()
    mipruner_link_for_old_glibc(${target} ARCHIVE)
  endif()
endfunction()

mipruner_add_library(mipruner SHARED CPU)
mipruner_add_library(mipruner_static STATIC CPU)
set_target_properties(mipruner_static PROPERTIES OUTPUT_NAME mipruner EXPORT_NAME static)
add_library(mipruner::mipruner ALIAS mipruner)
add_library(mipruner::static ALIAS mipruner_static)
set(mipruner_libraries mipruner mipruner_static)
if(mipruner_cuda_objects)
  mipruner_add_library(mipruner_with_cuda SHARED CUDA)
  set_target_properties(mipruner_with_cuda PROPERTIES OUTPUT_NAME mipruner_cuda EXPORT_NAME cuda)
  add_library(mipruner::cuda ALIAS mipruner_with_cuda)
  list(APPEND mipruner_libraries mipruner_with_cuda)
endif()

# Headers for hosts of llama.cpp, compiled by the host against its own.
add_library(mipruner_llama INTERFACE)
set_target_properties(mipruner_llama PROPERTIES EXPORT_NAME llama)
target_compile_features(mipruner_llama INTERFACE cxx_std_17)
target_link_libraries(mipruner_llama INTERFACE mipruner)
target_include_directories(mipruner_llama INTERFACE
  $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/csrc/llama>)
add_library(mipruner::llama ALIAS mipruner_llama)

# All of them, for whoever builds before installing.
add_custom_target(mipruner_all_libraries DEPENDS ${mipruner_libraries})
if(MIPRUNER_INSTALL)
  include(csrc/c_api/install.cmake)
endif()
