# mipruner-mtmd, the program: included where -DMIPRUNER_LLAMA=ON.
#
# llama.cpp is taken from the first of:
#   -DLLAMA_CPP_DIR=<source tree>      built here, as static libraries inside the program
#   -DLLAMA_CPP_DIR=<install prefix>   what `cmake --install` of llama.cpp wrote
#   CMAKE_PREFIX_PATH and the system   the same, found as the CMake package "llama"
set(LLAMA_CPP_DIR "" CACHE PATH "llama.cpp: a source tree or an install prefix; empty: find it")
set(mipruner_llama_hint "Build llama.cpp with -DLLAMA_BUILD_MTMD=ON and install it, then say where \
with -DCMAKE_PREFIX_PATH=<prefix> or -DLLAMA_CPP_DIR=<prefix or source tree>")

# Builds the libraries in a source tree and nothing else of it. A function, so that the settings
# end with it.
function(mipruner_build_llama_cpp source_dir)
  foreach(part COMMON TESTS TOOLS EXAMPLES SERVER APP UI)
    set(LLAMA_BUILD_${part} OFF)
  endforeach()
  set(LLAMA_BUILD_MTMD ON)
  set(LLAMA_OPENSSL OFF)
  set(BUILD_SHARED_LIBS OFF)  # the program then needs no path to them
  set(CMAKE_CXX_EXTENSIONS ON)
  set(CMAKE_CXX_VISIBILITY_PRESET default)
  set(CMAKE_VISIBILITY_INLINES_HIDDEN OFF)
  add_subdirectory(${source_dir} ${CMAKE_CURRENT_BINARY_DIR}/llama.cpp EXCLUDE_FROM_ALL)
endfunction()

# Sets `libraries` and `includes` to those of the tree at LLAMA_CPP_DIR.
function(mipruner_use_llama_source libraries includes)
  mipruner_build_llama_cpp(${LLAMA_CPP_DIR})
  if(NOT TARGET mtmd)
    message(FATAL_ERROR "LLAMA_CPP_DIR: the source tree ${LLAMA_CPP_DIR} has no target mtmd with "
      "LLAMA_BUILD_MTMD=ON; a llama.cpp of mid-2026 or later is needed")
  endif()
  set(${libraries} mtmd llama ggml PARENT_SCOPE)
  set(${includes} ${LLAMA_CPP_DIR}/include ${LLAMA_CPP_DIR}/ggml/include
    ${LLAMA_CPP_DIR}/tools/mtmd PARENT_SCOPE)
endfunction()

# What is found elsewhere, in the system or in the cache of an older run, is not what was asked for.
function(mipruner_check_llama_place)
  get_filename_component(found ${LLAMA_LIB_DIR} REALPATH)
  get_filename_component(wanted "${LLAMA_CPP_DIR}" REALPATH)
  string(FIND "${found}/" "${wanted}/" at)
  if(LLAMA_CPP_DIR AND NOT at EQUAL 0)
    message(FATAL_ERROR "LLAMA_CPP_DIR: got ${LLAMA_CPP_DIR}, but the llama.cpp that was found is "
      "in ${found}. Start with an empty build folder. ${mipruner_llama_hint}")
  endif()
endfunction()

# The same of an installed one. mtmd is in neither of llama.cpp's packages.
function(mipruner_use_installed_llama libraries includes)
  if(LLAMA_CPP_DIR)
    # In front of all other places, for ggml too, which llama's package looks for in turn.
    list(INSERT CMAKE_PREFIX_PATH 0 ${LLAMA_CPP_DIR})
  endif()
  find_package(llama CONFIG QUIET)
  if(NOT llama_FOUND)
    message(FATAL_ERROR "MIPRUNER_LLAMA: found no llama-config.cmake under "
      "\"${LLAMA_CPP_DIR}\" (LLAMA_CPP_DIR), \"${CMAKE_PREFIX_PATH}\" (CMAKE_PREFIX_PATH) or the "
      "system's folders. ${mipruner_llama_hint}")
  endif()
  mipruner_check_llama_place()
  unset(MIPRUNER_MTMD_LIBRARY CACHE)  # of another llama.cpp, perhaps
  unset(MIPRUNER_MTMD_INCLUDE_DIR CACHE)
  find_library(MIPRUNER_MTMD_LIBRARY mtmd HINTS ${LLAMA_LIB_DIR} NO_DEFAULT_PATH)
  find_path(MIPRUNER_MTMD_INCLUDE_DIR mtmd-helper.h HINTS ${LLAMA_INCLUDE_DIR} NO_DEFAULT_PATH)
  if(NOT MIPRUNER_MTMD_LIBRARY OR NOT MIPRUNER_MTMD_INCLUDE_DIR)
    message(FATAL_ERROR "MIPRUNER_LLAMA: the llama.cpp at ${LLAMA_LIB_DIR} comes without the "
      "library mtmd or without mtmd-helper.h in ${LLAMA_INCLUDE_DIR}. ${mipruner_llama_hint}")
  endif()
  set(${libraries} ${MIPRUNER_MTMD_LIBRARY} llama PARENT_SCOPE)
  set(${includes} ${LLAMA_INCLUDE_DIR} ${MIPRUNER_MTMD_INCLUDE_DIR} PARENT_SCOPE)
endfunction()

# Functions that came late, by name, so that an older llama.cpp is a sentence here and not a page of
# compiler messages.
function(mipruner_check_mtmd_header includes)
  foreach(folder ${includes})
    if(EXISTS ${folder}/mtmd-helper.h)
      set(mtmd_header ${folder}/mtmd-helper.h)
    endif()
  endforeach()
  file(READ ${mtmd_header} text)
  foreach(name mtmd_helper_init_opt_default mtmd_helper_decode_image_chunk)
    if(NOT text MATCHES ${name})
      message(FATAL_ERROR "MIPRUNER_LLAMA: ${mtmd_header} has no ${name}(): a llama.cpp of "
        "mid-2026 or later is needed (tested: the one in llama-cpp-python 0.3.36)")
    endif()
  endforeach()
endfunction()

if(LLAMA_CPP_DIR AND NOT IS_DIRECTORY ${LLAMA_CPP_DIR})
  message(FATAL_ERROR "LLAMA_CPP_DIR: got ${LLAMA_CPP_DIR}, which is no folder. "
    "${mipruner_llama_hint}")
elseif(LLAMA_CPP_DIR AND EXISTS ${LLAMA_CPP_DIR}/CMakeCache.txt)
  message(FATAL_ERROR "LLAMA_CPP_DIR: got ${LLAMA_CPP_DIR}, which is a build folder. "
    "${mipruner_llama_hint}")
elseif(LLAMA_CPP_DIR AND EXISTS ${LLAMA_CPP_DIR}/tools/mtmd/mtmd.h)
  mipruner_use_llama_source(mipruner_llama_libraries mipruner_llama_includes)
else()
  mipruner_use_installed_llama(mipruner_llama_libraries mipruner_llama_includes)
endif()
mipruner_check_mtmd_header("${mipruner_llama_includes}")

file(GLOB mtmd_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/mtmd/*.cpp)
add_executable(mipruner-mtmd ${mtmd_sources})
target_link_libraries(mipruner-mtmd PRIVATE
  mipruner_options mipruner_static ${mipruner_llama_libraries} Threads::Threads)
target_include_directories(mipruner-mtmd PRIVATE ${CMAKE_CURRENT_LIST_DIR})
target_include_directories(mipruner-mtmd SYSTEM PRIVATE ${mipruner_llama_includes})
# Installing llama.cpp clears the paths by which its libraries find each other, so the program's path
# must serve them too: an RPATH does, the RUNPATH that linkers write by default does not.
if(NOT APPLE)
  target_link_options(mipruner-mtmd PRIVATE -Wl,--disable-new-dtags)
endif()
set_target_properties(mipruner-mtmd PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
if(MIPRUNER_INSTALL)
  include(GNUInstallDirs)
  install(TARGETS mipruner-mtmd RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
