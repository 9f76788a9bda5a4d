# SPDX-License-Identifier: BSL-1.0
cmake_minimum_required(VERSION 3.25)
# `conan create` packs the headers and builds test_package against the package, in a Conan home of
# its own and with no remote.
find_program(CONAN conan HINTS ${SOURCE}/build/tools/conan/bin)
if(NOT CONAN)
  message("VELTRIX SKIPPED: Conan 2 is not here (tools/get-deps test puts it into a venv)")
  return()
endif()
file(REMOVE_RECURSE ${WORK})
set(ENV{CONAN_HOME} ${WORK}/home)
execute_process(COMMAND ${CONAN} profile detect COMMAND_ERROR_IS_FATAL ANY OUTPUT_QUIET ERROR_QUIET)
# The recipe is exported from a copy, so that the build folders of the test stay out of the source.
file(COPY ${SOURCE}/conanfile.py ${SOURCE}/include ${SOURCE}/LICENSE ${SOURCE}/test_package
     DESTINATION ${WORK}/source)
file(COPY ${SOURCE}/tests/consumers/main.cpp DESTINATION ${WORK}/source/tests/consumers)
execute_process(COMMAND ${CONAN} create ${WORK}/source --no-remote --build=missing
                        --settings compiler.cppstd=20
                COMMAND_ERROR_IS_FATAL ANY)
# An older standard is refused by the recipe, not by the compiler.
execute_process(COMMAND ${CONAN} create ${WORK}/source --no-remote --settings compiler.cppstd=17
                RESULT_VARIABLE refused OUTPUT_VARIABLE text ERROR_VARIABLE text)
if(refused EQUAL 0 OR NOT text MATCHES "cppstd")
  message(FATAL_ERROR "C++17 was not refused by the recipe: ${text}")
endif()
