# What the GoogleTest projects of this folder share: libmipruner as a part of the project, and how all
# of it is compiled. Set MIPRUNER_CUDA before including this.
#
# -DMIPRUNER_TESTS_SANITIZE=address,undefined compiles all of it so, the library included.
set(MIPRUNER_TESTS_SANITIZE "" CACHE STRING "What -fsanitize= is to get; empty: none")
if(MIPRUNER_TESTS_SANITIZE)
  add_compile_options(-fsanitize=${MIPRUNER_TESTS_SANITIZE} -fno-sanitize-recover=all -g1
    -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${MIPRUNER_TESTS_SANITIZE})
endif()
set(MIPRUNER_WERROR ON CACHE BOOL "")
add_subdirectory(${CMAKE_CURRENT_LIST_DIR}/../.. mipruner EXCLUDE_FROM_ALL)
find_package(GTest REQUIRED)

set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
