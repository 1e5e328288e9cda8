# What `cmake --install` puts where: libraries, headers, the CMake package and the pkg-config file.
# All of it finds itself by relative paths, so that the folder may be moved. setup.py installs the
# component `libraries`, which is all of this and nothing else, into the Python package.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
foreach(dir CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
  if(IS_ABSOLUTE "${${dir}}")
    message(FATAL_ERROR "${dir}: got ${${dir}}, allowed is a path relative to CMAKE_INSTALL_PREFIX")
  endif()
endforeach()
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mipruner)

install(TARGETS ${mipruner_libraries} mipruner_llama EXPORT mipruner_targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libraries
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libraries
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY csrc/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT libraries
  FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(DIRECTORY csrc/llama/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT libraries
  FILES_MATCHING PATTERN "*.hpp" PATTERN "mtmd" EXCLUDE)

install(EXPORT mipruner_targets NAMESPACE mipruner:: DESTINATION ${package_dir}
  FILE mipruner-targets.cmake COMPONENT libraries)
configure_package_config_file(csrc/c_api/mipruner-config.cmake.in mipruner-config.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
# Before 1.0 every minor version may change the interface.
write_basic_package_version_file(mipruner-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/mipruner-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/mipruner-config-version.cmake
  DESTINATION ${package_dir} COMPONENT libraries)

# From lib/pkgconfig back to the prefix, whatever the library folder is called.
file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" prefix_from_pc ${prefix_from_pc})
configure_file(csrc/c_api/mipruner.pc.in mipruner.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mipruner.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT libraries)
