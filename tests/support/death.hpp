// Runs code that should abort in a process of its own, and says how it ended.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

namespace veltrix_test {

struct ending {
  bool aborted = false;
  std::string told;  ///< what it wrote on stderr
};

/// Calls `f` in a child process. Call it while the process has one thread.
template <class Function>
ending run_to_its_end(Function&& f) {
  int pipe_ends[2];
  if (::pipe(pipe_ends) != 0) return {};
  const ::pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // not the test framework's
    ::dup2(pipe_ends[1], STDERR_FILENO);
    ::close(pipe_ends[0]);
    f();
    ::_exit(0);
  }
  ::close(pipe_ends[1]);
  ending seen;
  char part[256];
  for (::ssize_t got; (got = ::read(pipe_ends[0], part, sizeof part)) > 0;)
    seen.told.append(part, static_cast<std::size_t>(got));
  ::close(pipe_ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  seen.aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  return seen;
}

}  // namespace veltrix_test
