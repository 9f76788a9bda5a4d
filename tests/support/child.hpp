// A forked child that reports to its parent, and cannot hang it.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "veltrix/detail/config.hpp"

namespace veltrix_test {

/// TSan's runtime ends a child that starts threads when its parent had several: it takes the new
/// thread for one that is gone.
inline constexpr bool child_may_start_threads = !VELTRIX_TSAN;

/// What a child uses to say what is wrong.
class child_report {
 public:
  explicit child_report(int to) : to_(to) {}
  void expect(bool right, const char* what) {
    if (right) return;
    failed_ = true;
    tell(what);
  }
  void tell(const std::string& text) const {
    const std::string line = text + "; ";
    if (::write(to_, line.data(), line.size()) < 0) ::_exit(3);
  }
  [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
  int to_;
  bool failed_ = false;
};

/// Calls `body(report)` in a child, which ends by _exit(), or by SIGALRM when it takes a minute.
/// Result: empty if all was as expected; else what was not.
template <class Body>
std::string run_in_child(Body body) {
  int ends[2];
  if (::pipe(ends) != 0) return "no pipe";
  const ::pid_t child = ::fork();
  if (child < 0) return "no fork";
  if (child == 0) {
    ::alarm(60);
    ::close(ends[0]);
    child_report report(ends[1]);
    try {
      body(report);
    } catch (...) {
      report.expect(false, "an exception");
    }
    ::_exit(report.failed() ? 1 : 0);
  }
  ::close(ends[1]);
  std::string told;
  char part[256];
  for (::ssize_t got; (got = ::read(ends[0], part, sizeof part)) > 0;)
    told.append(part, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return told + "no child to wait for";
  if (WIFSIGNALED(status)) told += "ended by " + std::string(::strsignal(WTERMSIG(status)));
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) told += "failed";
  return told;
}

}  // namespace veltrix_test
