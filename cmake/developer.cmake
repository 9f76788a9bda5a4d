# SPDX-License-Identifier: BSL-1.0
# What only this project's own builds use: warnings, the compiler cache, a place for defaults.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_EXTENSIONS OFF)

find_program(VELTRIX_CCACHE ccache)
if(VELTRIX_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${VELTRIX_CCACHE})
  if(VELTRIX_TEST_PCH) # the cache takes these only when told that no source asks for the time
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
        CCACHE_SLOPPINESS=pch_defines,time_macros ${VELTRIX_CCACHE})
  endif()
endif()

# Link this privately to get the project's warnings; consumers never see it.
add_library(veltrix_warnings INTERFACE)
target_compile_options(veltrix_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
