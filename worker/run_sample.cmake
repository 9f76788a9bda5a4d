# SPDX-License-Identifier: BSL-1.0
# Runs WORKER on SAMPLE and says how to feed it events of one's own.
execute_process(COMMAND ${WORKER} run --set events.source=file --set events.path=${SAMPLE}
                RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "veltrix-worker ended with ${result}")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -E echo "
The worker is ${WORKER}
Feed it the journal of this machine:
  journalctl -o json | ${WORKER} run --set events.source=stdin --set events.schema=journal
or any JSON Lines, one object a line, with the name of the field that holds the key:
  ... | ${WORKER} run --source stdin --schema any --set events.key_field=user
")
