# SPDX-License-Identifier: BSL-1.0
cmake_minimum_required(VERSION 3.25)
find_program(PKG_CONFIG NAMES pkg-config pkgconf)
if(NOT PKG_CONFIG)
  message("VELTRIX SKIPPED: pkg-config is not installed (apt: pkg-config)")
  return()
endif()
file(MAKE_DIRECTORY ${WORK})
set(ENV{PKG_CONFIG_PATH} ${PREFIX}/share/pkgconfig)
execute_process(COMMAND ${PKG_CONFIG} --modversion veltrix OUTPUT_VARIABLE found
                OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT found STREQUAL VERSION)
  message(FATAL_ERROR "pkg-config says version '${found}', wanted '${VERSION}'")
endif()
execute_process(COMMAND ${PKG_CONFIG} --cflags --libs veltrix OUTPUT_VARIABLE from_pc
                OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
separate_arguments(from_pc UNIX_COMMAND "${from_pc}")
separate_arguments(FLAGS UNIX_COMMAND "${FLAGS}")
execute_process(COMMAND ${CXX} ${FLAGS} -std=c++20 ${SOURCE}/tests/consumers/main.cpp
                        -o ${WORK}/consumer ${from_pc}
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${WORK}/consumer COMMAND_ERROR_IS_FATAL ANY)
