# MIPRUNER_GLIBC=2.28: the libraries load with that glibc and with every younger one, as a wheel for
# other machines has to (manylinux_2_28). Only linking differs: with what that release has, which
# zig knows (stubs.py), and with what this machine's compiler takes from its own, younger glibc and
# libstdc++ (younger_*.c*). Meant for gcc 12; another one may want more, which the linker tells.
set(MIPRUNER_GLIBC "" CACHE STRING
  "The oldest glibc to load with, as 2.28; needs the Python package ziglang; empty: this machine's")
if(NOT MIPRUNER_GLIBC)
  function(mipruner_link_for_old_glibc)
  endfunction()
  return()
endif()
if(APPLE OR NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  message(FATAL_ERROR "MIPRUNER_GLIBC: got ${MIPRUNER_GLIBC}, allowed with the compiler "
    "${CMAKE_CXX_COMPILER_ID} on ${CMAKE_SYSTEM_NAME} is nothing: it is for gcc on Linux")
endif()

set(mipruner_glibc_dir ${CMAKE_CURRENT_BINARY_DIR}/glibc-${MIPRUNER_GLIBC})
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libc_nonshared.a
  OUTPUT_VARIABLE mipruner_libc_nonshared OUTPUT_STRIP_TRAILING_WHITESPACE)
mipruner_ask_python(mipruner_stubs mipruner_no_stubs ${CMAKE_CURRENT_LIST_DIR}/stubs.py
  ${CMAKE_SYSTEM_PROCESSOR} ${MIPRUNER_GLIBC} ${mipruner_glibc_dir} ${mipruner_libc_nonshared})
if(NOT mipruner_python OR mipruner_no_stubs)
  message(FATAL_ERROR "MIPRUNER_GLIBC: got ${MIPRUNER_GLIBC}, but its symbols are not at hand: "
    "${mipruner_no_python}${mipruner_no_stubs}")
endif()

# A part of libc.so in that folder: linkers look into it after the C++ runtime.
add_library(mipruner_younger STATIC
  ${CMAKE_CURRENT_LIST_DIR}/younger_arc4random.cpp
  ${CMAKE_CURRENT_LIST_DIR}/younger_find_object.cpp
  ${CMAKE_CURRENT_LIST_DIR}/younger_threads.cpp)
set_target_properties(mipruner_younger PROPERTIES ARCHIVE_OUTPUT_DIRECTORY ${mipruner_glibc_dir})
target_link_libraries(mipruner_younger PRIVATE mipruner_options)
# Before the C++ runtime.
add_library(mipruner_younger_streams STATIC ${CMAKE_CURRENT_LIST_DIR}/younger_streams.cpp)
target_link_libraries(mipruner_younger_streams PRIVATE mipruner_options)

# Links the library or module so. RUNTIME is SHARED, where C++ exceptions leave it for others, or
# STATIC; an ARCHIVE gets along by itself.
function(mipruner_link_for_old_glibc target runtime)
  if(runtime STREQUAL "ARCHIVE")
    target_sources(${target} PRIVATE ${PROJECT_SOURCE_DIR}/csrc/glibc/younger_threads.cpp)
    return()
  endif()
  add_dependencies(${target} mipruner_younger)
  target_link_options(${target} PRIVATE "-L${mipruner_glibc_dir}")
  if(runtime STREQUAL "STATIC")
    target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc)
  else()
    target_link_libraries(${target} PRIVATE mipruner_younger_streams)
  endif()
endfunction()
