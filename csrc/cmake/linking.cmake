# What linkers are asked for in words of their own: GNU's, which lld and gold understand, and Apple's.

# The library or module keeps for itself what it was linked from.
function(mipruner_hide_archives target)
  if(NOT APPLE)  # there the compiler's hidden visibility has done it
    target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL)
  endif()
endfunction()

# The library exports the C functions alone, and needs nothing but the C library to load.
function(mipruner_export_c_functions target)
  if(APPLE)
    set(exports ${CMAKE_CURRENT_SOURCE_DIR}/csrc/c_api/exports.txt)
    target_link_options(${target} PRIVATE "LINKER:-exported_symbols_list,${exports}")
  else()
    set(exports ${CMAKE_CURRENT_SOURCE_DIR}/csrc/c_api/exports.map)
    target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc
      LINKER:--no-undefined "LINKER:--version-script=${exports}")
  endif()
  set_target_properties(${target} PROPERTIES LINK_DEPENDS ${exports})
endfunction()

# The module needs libtorch, which is found in the folder `beside` it when it is loaded.
function(mipruner_link_torch target torch_lib beside)
  if(APPLE)
    set_target_properties(${target} PROPERTIES BUILD_RPATH "@loader_path/${beside}")
    target_link_options(${target} PRIVATE "-L${torch_lib}" -Wl,-needed-ltorch -ltorch_cpu)
    return()
  endif()
  set_target_properties(${target} PROPERTIES
    BUILD_RPATH "$ORIGIN/${beside}" BUILD_RPATH_USE_ORIGIN ON)
  # libtorch.so itself must stay a dependency though nothing here names it: on a CUDA build of torch
  # it is what brings libtorch_cuda.so, and with it the stream functions, into reach.
  target_link_options(${target} PRIVATE "-L${torch_lib}"
    -Wl,--no-as-needed -ltorch -ltorch_cpu -Wl,--as-needed)
endfunction()
