// What a thread has used up, so that a test can tell its own waits from the machine's doing.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/resource.h>
#include <time.h>

#include <chrono>

namespace veltrix_test {

/// What a thread has used up so far.
struct thread_usage {
  std::chrono::steady_clock::time_point at;
  std::chrono::nanoseconds cpu;
  long waits;        ///< it gave up the CPU to wait for something
  long preemptions;  ///< it was made to give up the CPU
  long faults;       ///< pages that were not there; the kernel may wait for them

  static thread_usage now() {
    ::rusage used{};
    ::getrusage(RUSAGE_THREAD, &used);
    ::timespec cpu{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    return {std::chrono::steady_clock::now(),
            std::chrono::seconds(cpu.tv_sec) + std::chrono::nanoseconds(cpu.tv_nsec), used.ru_nvcsw,
            used.ru_nivcsw, used.ru_minflt + used.ru_majflt};
  }
};

}  // namespace veltrix_test
