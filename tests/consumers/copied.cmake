# SPDX-License-Identifier: BSL-1.0
cmake_minimum_required(VERSION 3.25)
# A service copies include/veltrix into its own tree and compiles: no build system, no packages.
file(REMOVE_RECURSE ${WORK})
file(COPY ${SOURCE}/include/veltrix DESTINATION ${WORK}/third_party)
separate_arguments(FLAGS UNIX_COMMAND "${FLAGS}")
execute_process(COMMAND ${CXX} ${FLAGS} -std=c++20 -I${WORK}/third_party
                        ${SOURCE}/tests/consumers/main.cpp -o ${WORK}/consumer -pthread
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${WORK}/consumer COMMAND_ERROR_IS_FATAL ANY)
