// A filter of system calls: this process, and what it executes, gets no membarrier(2).
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace no_membarrier {

enum class answer : std::uint32_t {
  refused = SECCOMP_RET_ERRNO | EPERM,
  killed = SECCOMP_RET_KILL_PROCESS,
};

/// Result: whether the filter is in place; it stays for good.
inline bool install(answer to_membarrier) {
  const std::uint32_t number = SYS_membarrier;
  ::sock_filter steps[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(::seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, static_cast<std::uint32_t>(to_membarrier)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  ::sock_fprog program{sizeof steps / sizeof steps[0], steps};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

}  // namespace no_membarrier
