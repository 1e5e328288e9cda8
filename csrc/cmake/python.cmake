# The interpreter to build for. Everything about Python and torch is asked of this one program, so
# that an isolated pip build, a plain one and a build by hand agree.
if(NOT MIPRUNER_PYTHON)
  find_program(mipruner_found_python NAMES python3 python REQUIRED)
  set(MIPRUNER_PYTHON ${mipruner_found_python})
endif()

# Runs the interpreter and sets `result` to what it prints.
function(mipruner_ask_python result)
  execute_process(COMMAND ${MIPRUNER_PYTHON} ${ARGN}
    OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE code ERROR_VARIABLE trouble)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${MIPRUNER_PYTHON} ${ARGN} failed:\n${trouble}")
  endif()
  set(${result} "${answer}" PARENT_SCOPE)
endfunction()
