# csrc/cpu/simd/kernels.cpp is compiled once per instruction set; csrc/cpu/dispatch.cpp chooses
# among the results at run time, and learns which exist from MIPRUNER_HAVE_<LEVEL>.
include(CheckCXXCompilerFlag)
include(CheckCXXSourceCompiles)

set(mipruner_avx512
  -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512)
set(mipruner_flags_baseline "")
set(mipruner_flags_avx2 -mavx2 -mfma -mf16c)
set(mipruner_flags_avx512 ${mipruner_avx512})
set(mipruner_flags_avx512_bf16 ${mipruner_avx512} -mavx512bf16)
# The code of avx512_bf16 on baseline instructions: how the tests run it on machines without
# AVX-512.
set(mipruner_flags_emulated -DMIPRUNER_EMULATE_AVX512)

# Sets `result` to the levels that this compiler can produce for this processor family.
function(mipruner_find_levels result)
  set(levels baseline)
  check_cxx_source_compiles("
    #if !defined(__x86_64__)
    #error not x86-64
    #endif
    int main() { return 0; }" MIPRUNER_IS_X86_64)
  # A build of the emulated CUDA kernels is not about these: the two that are always there will do.
  if(MIPRUNER_IS_X86_64 AND NOT MIPRUNER_CUDA STREQUAL "EMULATED")
    foreach(level avx2 avx512 avx512_bf16)
      string(REPLACE ";" " " flags "${mipruner_flags_${level}}")
      check_cxx_compiler_flag("${flags}" MIPRUNER_COMPILER_HAS_${level})
      if(MIPRUNER_COMPILER_HAS_${level})
        list(APPEND levels ${level})
      endif()
    endforeach()
  endif()
  list(APPEND levels emulated)
  set(${result} ${levels} PARENT_SCOPE)
endfunction()

# Compiles the kernels of every level into objects, `mipruner_kernel_objects`, and tells `target`
# which there are.
function(mipruner_add_kernel_levels target)
  set(source ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cpu/simd/kernels.cpp)
  mipruner_find_levels(levels)
  set(objects "")
  foreach(level ${levels})
    add_library(mipruner_kernels_${level} OBJECT ${source})
    target_link_libraries(mipruner_kernels_${level} PRIVATE mipruner_options)
    target_compile_definitions(mipruner_kernels_${level} PRIVATE MIPRUNER_LEVEL=${level})
    # ISO C++ turns fused multiply-adds off in gcc: ask for them. Never -ffast-math: the
    # exponential's range reduction and every NaN test depend on IEEE arithmetic.
    target_compile_options(mipruner_kernels_${level} PRIVATE
      -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math
      -Wno-psabi  # vectors are passed between inlined functions only
      ${mipruner_flags_${level}})
    list(APPEND objects $<TARGET_OBJECTS:mipruner_kernels_${level}>)
    string(TOUPPER ${level} level_upper)
    target_compile_definitions(${target} PRIVATE MIPRUNER_HAVE_${level_upper})
  endforeach()
  set(mipruner_kernel_objects "${objects}" PARENT_SCOPE)
  set(mipruner_levels "${levels}" PARENT_SCOPE)
endfunction()
