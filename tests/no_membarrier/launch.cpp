// Runs a program where membarrier(2) does not work.
//   launch refused <program> <argument>...   the call fails with EPERM
//   launch killed <program> <argument>...    whoever makes the call is killed
//   launch dies <program> <argument>...      as killed; passes if the program is
// SPDX-License-Identifier: BSL-1.0
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "filter.hpp"
#include "support/skip.hpp"

namespace {

int run(no_membarrier::answer to_membarrier, char** command) {
  if (!no_membarrier::install(to_membarrier)) {
    veltrix_test::skip("seccomp(2) takes no filter here");
    return 0;
  }
  ::execv(command[0], command);
  std::perror("launch: execv");
  return 2;
}

int expect_death(char** command) {
  const ::pid_t child = ::fork();
  if (child == 0) ::_exit(run(no_membarrier::answer::killed, command));
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return 2;
  const bool died = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
  std::printf("launch: the program %s\n", died ? "was killed, as it should be" : "lives");
  return died ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string how = count > 2 ? arguments[1] : "";
  if (how == "refused") return run(no_membarrier::answer::refused, arguments + 2);
  if (how == "killed") return run(no_membarrier::answer::killed, arguments + 2);
  if (how == "dies") return expect_death(arguments + 2);
  std::fprintf(stderr, "usage: launch refused|killed|dies <program> <argument>...\n");
  return 2;
}
