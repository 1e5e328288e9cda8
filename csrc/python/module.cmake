# `_C`: the pybind11 door.
set(mipruner_module_state OFF)
if(MIPRUNER_PYTHON_MODULE STREQUAL "OFF")
  return()
endif()

set(module_lacks "${mipruner_no_python}")
if(NOT module_lacks)
  set(Python_EXECUTABLE ${mipruner_python})
  set(Python_FIND_VIRTUALENV STANDARD)  # this interpreter, and no active environment's
  set(PYBIND11_FINDPYTHON ON)
  find_package(Python 3.10 QUIET COMPONENTS Interpreter Development.Module)
  if(NOT Python_Development.Module_FOUND)
    set(module_lacks "${mipruner_python} has no C headers (Debian: python3-dev)")
  else()
    mipruner_ask_python(pybind11_DIR no_pybind11 -m pybind11 --cmakedir)
    find_package(pybind11 2.13 CONFIG QUIET)  # where Python has none, the system may
    if(NOT pybind11_FOUND)
      set(module_lacks "no pybind11 2.13 or newer was found for ${mipruner_python} "
        "(pip install pybind11)")
      string(REPLACE ";" "" module_lacks "${module_lacks}")
    endif()
  endif()
endif()
if(module_lacks)
  if(MIPRUNER_PYTHON_MODULE STREQUAL "ON")
    message(FATAL_ERROR "MIPRUNER_PYTHON_MODULE: got ON, but ${module_lacks}")
  endif()
  set(mipruner_module_state "OFF (${module_lacks})")
  return()
endif()
set(mipruner_module_state "ON (Python ${Python_VERSION}, pybind11 ${pybind11_VERSION})")

pybind11_add_module(_C MODULE NO_EXTRAS csrc/python/module.cpp)  # its headers are SYSTEM
target_link_libraries(_C PRIVATE mipruner_core)
mipruner_hide_archives(_C)
mipruner_link_for_old_glibc(_C STATIC)  # pybind11 catches every exception
string(TOUPPER ${CMAKE_BUILD_TYPE} build_type_upper)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${build_type_upper}}" mipruner_cxx_flags)
target_compile_definitions(_C PRIVATE
  MIPRUNER_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
  MIPRUNER_CXX_FLAGS="${mipruner_cxx_flags}")
