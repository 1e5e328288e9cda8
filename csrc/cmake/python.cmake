# The interpreter to build for. Everything about Python and torch is asked of this one program, so
# that an isolated pip build, a plain one and a build by hand agree.
#
# Sets mipruner_python to it. Where there is none, that is empty and mipruner_no_python says why: the
# C library is then all there is to build.
set(mipruner_python "${MIPRUNER_PYTHON}")
set(mipruner_no_python "")
if(MIPRUNER_PYTHON_MODULE STREQUAL "OFF" AND MIPRUNER_TORCH STREQUAL "OFF")
  return()
endif()

# Runs the interpreter and sets `result` to what it prints, and `trouble` to what it complains of
# where it fails, or to nothing.
function(mipruner_ask_python result trouble)
  execute_process(COMMAND ${mipruner_python} ${ARGN}
    OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE code ERROR_VARIABLE complaint ERROR_STRIP_TRAILING_WHITESPACE)
  set(${result} "${answer}" PARENT_SCOPE)
  set(${trouble} "" PARENT_SCOPE)
  if(NOT code EQUAL 0)
    set(${trouble} "${mipruner_python} ${ARGN} failed (${code}): ${complaint}" PARENT_SCOPE)
  endif()
endfunction()

if(NOT mipruner_python)
  if(CMAKE_CROSSCOMPILING)
    # One that is found runs here, and would name the headers of here.
    set(mipruner_no_python "cross-compiling without MIPRUNER_PYTHON")
    return()
  endif()
  find_program(mipruner_found_python NAMES python3 python)
  if(NOT mipruner_found_python)
    set(mipruner_no_python "no Python was found")
    return()
  endif()
  set(mipruner_python ${mipruner_found_python})
endif()
mipruner_ask_python(python_is_new python_trouble -c
  "print(__import__('sys').version_info >= (3, 10))")
if(python_trouble)
  set(mipruner_no_python "${python_trouble}")
elseif(NOT python_is_new STREQUAL "True")
  set(mipruner_no_python "${mipruner_python} is older than Python 3.10")
endif()
if(mipruner_no_python)
  if(MIPRUNER_PYTHON)
    message(FATAL_ERROR "MIPRUNER_PYTHON: got ${MIPRUNER_PYTHON}, but ${mipruner_no_python}")
  endif()
  set(mipruner_python "")
endif()
