# `_C`: the pybind11 door.
mipruner_ask_python(pybind11_DIR -m pybind11 --cmakedir)
set(Python_EXECUTABLE ${MIPRUNER_PYTHON})
set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 CONFIG REQUIRED)

pybind11_add_module(_C MODULE NO_EXTRAS csrc/python/module.cpp)  # its headers are SYSTEM
target_link_libraries(_C PRIVATE mipruner_core)
target_link_options(_C PRIVATE -Wl,--exclude-libs,ALL)
string(TOUPPER ${CMAKE_BUILD_TYPE} build_type_upper)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${build_type_upper}}" mipruner_cxx_flags)
target_compile_definitions(_C PRIVATE
  MIPRUNER_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
  MIPRUNER_CXX_FLAGS="${mipruner_cxx_flags}")
