// What this host allows: cores, pids.max, memory, RLIMIT_NPROC; read once, passed on as values.
// Use for: defaults and bounds of the configuration, and for naming a limit that was hit.
// Not for: watching load; the facts are those of the moment they were read.
// Threads: values and functions without state; reading opens files below a root directory.
// Progress: read_host_facts() does I/O and allocates; the rest is arithmetic.
// Callbacks: none.
// Exceptions: std::bad_alloc. A file that is missing or odd leaves its fact unknown.
// Lifetime: facts own their texts.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "../detail/config.hpp"
#include "../version.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What is known of the host. An empty optional is a limit that does not exist or was not found.
struct host_facts {
  std::int64_t cores = 1;                          ///< that this process may run on
  std::optional<std::int64_t> pids_max{};          ///< of the cgroup that leaves the least room
  std::int64_t pids_others = 0;                    ///< in use there, this process not counted
  std::optional<std::int64_t> memory_max{};        ///< bytes; the smallest of the cgroups above
  std::optional<std::int64_t> process_limit{};     ///< RLIMIT_NPROC, unless the kernel ignores it
  std::optional<std::int64_t> address_space{};     ///< RLIMIT_AS, bytes
  std::optional<std::int64_t> memory_available{};  ///< bytes
  std::optional<std::int64_t> memory_total{};      ///< bytes
  std::string host_name{};
  std::string pod_name{};  ///< $POD_NAME
};

/// Reads the facts of this process. `root` stands before /proc and /sys; empty for the real ones.
[[nodiscard]] host_facts read_host_facts(std::string_view root = {});

/// A bound and the reason for it.
struct host_limit {
  std::int64_t value;
  std::string name;    ///< what to raise: "pids.max"
  std::string source;  ///< "pids.max=300, 16 kept back"
};

/// The largest pool this host allows with stacks of `stack_kib`; empty if nothing bounds it.
[[nodiscard]] std::optional<host_limit> max_workers(const host_facts& facts,
                                                    std::int64_t stack_kib);

}  // namespace VELTRIX_ABI
}  // namespace veltrix
