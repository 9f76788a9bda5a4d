# SPDX-License-Identifier: BSL-1.0
cmake_minimum_required(VERSION 3.25)
# Installs into an empty prefix, so that nothing is left from a run before.
file(REMOVE_RECURSE ${PREFIX})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BINARY_DIR} --prefix ${PREFIX}
                COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET)
file(GLOB_RECURSE installed RELATIVE ${PREFIX} ${PREFIX}/*)
foreach(wanted IN ITEMS include/veltrix/veltrix.hpp include/veltrix/detail/sync.hpp
        share/cmake/veltrix/veltrix-config.cmake share/pkgconfig/veltrix.pc
        share/licenses/veltrix/LICENSE)
  if(NOT wanted IN_LIST installed)
    message(FATAL_ERROR "not installed: ${wanted}; installed were: ${installed}")
  endif()
endforeach()
# Headers only: a library or a program among them would be a mistake of the install rules.
list(FILTER installed EXCLUDE REGEX "^(include/veltrix/.*\\.hpp|share/)")
if(installed)
  message(FATAL_ERROR "installed beside the headers: ${installed}")
endif()
