# The CUDA backend, for mipruner_add_backend to add to a library:
#   ON, AUTO   csrc/cuda/*.cu compiled by nvcc; AUTO does without when there is none
#   EMULATED   the same files compiled for the processor against csrc/tests/emu, for tests alone: a
#              "device" that this process runs itself, in ordinary memory
#   OFF        csrc/cuda/absent.cpp in their place, which names no CUDA symbol
file(GLOB mipruner_cuda_sources CONFIGURE_DEPENDS csrc/cuda/*.cu)
set(mipruner_cuda_state OFF)

# Sets `result` to the architectures to compile for: the oldest with bfloat16 up to the newest, as
# far as this nvcc knows them, and PTX for the others from sm_90 on.
function(mipruner_find_architectures result)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-code
    OUTPUT_VARIABLE known ERROR_VARIABLE trouble RESULT_VARIABLE code)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${CMAKE_CUDA_COMPILER} --list-gpu-code failed, so CMAKE_CUDA_ARCHITECTURES "
      "has to be set:\n${trouble}")
  endif()
  set(architectures "")
  foreach(architecture 80 86 89 90 100 120)
    if(known MATCHES "sm_${architecture}[^0-9a-z]")
      list(APPEND architectures ${architecture}-real)
    endif()
  endforeach()
  if(NOT architectures)
    message(FATAL_ERROR "${CMAKE_CUDA_COMPILER} compiles for none of sm_80 to sm_120; set CUDACXX to "
      "another nvcc, or use MIPRUNER_CUDA=OFF")
  endif()
  # PTX of the newest, and of 90 for architectures numbered between two of these.
  string(REGEX REPLACE "-real$" "" architectures "${architectures}")
  string(REPLACE "90-real" "90" architectures "${architectures}")
  set(${result} "${architectures}" PARENT_SCOPE)
endfunction()

function(mipruner_use_nvcc)
  add_library(mipruner_cuda OBJECT ${mipruner_cuda_sources})
  target_include_directories(mipruner_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/csrc)
  set_target_properties(mipruner_cuda PROPERTIES
    CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden)
  # nvcc reads this, and a shell after it.
  string(REPLACE " " "\\\\ " source_dir "${CMAKE_CURRENT_SOURCE_DIR}")
  target_compile_options(mipruner_cuda PRIVATE
    --threads=4  # architectures of one file
    # Which product joins which sum is written out as fmaf: left to the compiler, the same formula
    # in two kernels could round in two ways, and a batch differ from its items alone.
    --fmad=false
    -Xfatbin=-compress-all  # a third of the size
    -Xcompiler=-Wall,-Wextra,-Wshadow,-ffile-prefix-map=${source_dir}/=)
  if(MIPRUNER_WERROR)
    target_compile_options(mipruner_cuda PRIVATE -Werror=all-warnings -Xcompiler=-Werror)
  endif()
  find_package(CUDAToolkit REQUIRED)
  add_library(mipruner_cuda_memory OBJECT csrc/cuda/memory.cpp)
  target_link_libraries(mipruner_cuda_memory PRIVATE mipruner_options CUDA::cudart_static)
  set(mipruner_cuda_objects
    $<TARGET_OBJECTS:mipruner_cuda> $<TARGET_OBJECTS:mipruner_cuda_memory> PARENT_SCOPE)
  # The static runtime: the result loads on a machine that has neither CUDA nor a driver.
  set(mipruner_cuda_runtime CUDA::cudart_static PARENT_SCOPE)
endfunction()

function(mipruner_use_emulation)
  file(GLOB emulator CONFIGURE_DEPENDS csrc/tests/emu/*.cpp)
  # The checker and its hooks are for kernels compiled to be checked; unchecked.cpp stands in.
  list(FILTER emulator EXCLUDE REGEX "/(checker|hooks)\\.cpp$")
  add_library(mipruner_emulated OBJECT ${emulator} ${mipruner_cuda_sources})
  set_source_files_properties(${mipruner_cuda_sources} PROPERTIES LANGUAGE CXX)
  target_include_directories(mipruner_emulated PRIVATE csrc csrc/tests)
  target_compile_options(mipruner_emulated PRIVATE -O2 -fno-strict-aliasing
    "$<$<BOOL:${MIPRUNER_WERROR}>:-Wall;-Wextra;-Wshadow;-Wconversion;-Werror>"
    -Wno-unknown-pragmas)
  # The compiler does not know the suffix.
  set_source_files_properties(${mipruner_cuda_sources} PROPERTIES COMPILE_OPTIONS "-xc++")
  set(mipruner_cuda_objects $<TARGET_OBJECTS:mipruner_emulated> PARENT_SCOPE)
endfunction()

# Gives a library the CUDA backend, or absent.cpp where there is none or `kind` is CPU.
function(mipruner_add_backend target kind)
  if(kind STREQUAL "CPU" OR NOT mipruner_cuda_objects)
    target_sources(${target} PRIVATE csrc/cuda/absent.cpp)
    return()
  endif()
  target_sources(${target} PRIVATE ${mipruner_cuda_objects} csrc/cuda/present.cpp)
  target_link_libraries(${target} PRIVATE ${mipruner_cuda_runtime})
  if(CMAKE_CUDA_ARCHITECTURES)
    # Some generators want to know.
    set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  endif()
endfunction()

if(MIPRUNER_CUDA STREQUAL "EMULATED")
  mipruner_use_emulation()
  set(mipruner_cuda_state EMULATED)
elseif(NOT MIPRUNER_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT CMAKE_CUDA_ARCHITECTURES AND "$ENV{CUDAARCHS}" STREQUAL "")
      # Before the language is enabled, which would fill in the compiler's own default.
      mipruner_find_architectures(CMAKE_CUDA_ARCHITECTURES)
    endif()
    enable_language(CUDA)
    mipruner_use_nvcc()
    string(REPLACE ";" "," mipruner_architectures "${CMAKE_CUDA_ARCHITECTURES}")
    set(mipruner_cuda_state
      "ON (nvcc ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${mipruner_architectures})")
  elseif(MIPRUNER_CUDA STREQUAL "ON")
    message(FATAL_ERROR
      "MIPRUNER_CUDA: got ON, but no CUDA compiler was found; put nvcc on the PATH or set CUDACXX, "
      "or use MIPRUNER_CUDA=AUTO or OFF")
  else()
    set(mipruner_cuda_state "OFF (no CUDA compiler found)")
  endif()
endif()
mipruner_add_backend(mipruner_core CUDA)
if(MIPRUNER_CUDA STREQUAL "EMULATED")
  target_compile_definitions(mipruner_core PUBLIC MIPRUNER_EMULATED_CUDA)
endif()
