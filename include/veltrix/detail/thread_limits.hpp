// Which limit of the system keeps a process from starting another thread, and what it is.
// Use for: naming the cause when a pool cannot grow; asking how far it could. Internal.
// Not for: hot paths; every answer reads /proc and the cgroup files anew.
// Threads: pure functions of what the system says now.
// Progress: blocking file reads.
// Callbacks: none.
// Exceptions: std::bad_alloc; a file that cannot be read is a limit that is not there.
// Lifetime: returns by value.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config.hpp"

#if defined(__linux__)
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// One bound on the number of threads, in the unit its source uses.
struct thread_limit {
  std::uint64_t limit = 0;  ///< threads, bytes or mappings, as `source` says
  std::uint64_t used = 0;   ///< of the same unit
  std::uint64_t each = 1;   ///< what one more thread takes of it
  std::string source;       ///< "pids.max of /sys/fs/cgroup/x", "RLIMIT_NPROC of uid 7", ...

  /// How many more threads it lets through.
  [[nodiscard]] std::uint64_t room() const noexcept {
    return used >= limit ? 0 : (limit - used) / (each == 0 ? 1 : each);
  }
};

#if defined(__linux__)

/// Reads the limits of this process. Paths start at `root`, so that a test may bring its own files.
class thread_limit_reader {
 public:
  explicit thread_limit_reader(std::string root = {}) : root_(std::move(root)) {}

  /// Every bound found, in no order.
  /// @param stack_bytes  of a new thread; 0: the default of the process
  [[nodiscard]] std::vector<thread_limit> all(std::size_t stack_bytes) const {
    std::vector<thread_limit> found;
    add_cgroups(found);
    add_process_count(found);
    add_memory(found, stack_bytes);
    add_system(found);
    return found;
  }

  /// The bound with the least room; `source` is empty if there is none.
  [[nodiscard]] thread_limit tightest(std::size_t stack_bytes) const {
    thread_limit least;
    for (thread_limit& each : all(stack_bytes)) {
      if (least.source.empty() || each.room() < least.room()) least = std::move(each);
    }
    return least;
  }

 private:
  static constexpr std::uint64_t none = std::numeric_limits<std::uint64_t>::max();

  struct close_file {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  struct close_folder {
    void operator()(::DIR* folder) const noexcept { ::closedir(folder); }
  };

  [[nodiscard]] std::string text_of_file(const std::string& path) const {
    std::string text;
    const std::unique_ptr<std::FILE, close_file> file(std::fopen((root_ + path).c_str(), "re"));
    char part[4096];
    while (file) {
      const std::size_t got = std::fread(part, 1, sizeof part, file.get());
      if (got == 0) break;
      text.append(part, got);
    }
    return text;
  }

  /// The first number of the text; `none` for "max", for other words and for no text.
  [[nodiscard]] static std::uint64_t number_in(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at])) != 0)
      ++at;
    if (at == text.size() || std::isdigit(static_cast<unsigned char>(text[at])) == 0) return none;
    return std::strtoull(std::string(text.substr(at, 20)).c_str(), nullptr, 10);
  }

  /// What follows `key` at the start of a line of /proc/self/status and the like.
  [[nodiscard]] static std::string_view line_after(std::string_view text, std::string_view key) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line = text.substr(at, end - at);
      if (line.substr(0, key.size()) == key) return line.substr(key.size());
      at = end + 1;
    }
    return {};
  }

  /// Visits the lines of a text.
  template <class Visit>
  static void for_each_line(std::string_view text, Visit visit) {
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      visit(text.substr(at, end - at));
      at = end + 1;
    }
  }

  /// pids.max of our cgroup and of those above it; version 2 names no controller, version 1 "pids".
  void add_cgroups(std::vector<thread_limit>& found) const {
    for_each_line(text_of_file("/proc/self/cgroup"), [&](std::string_view line) {
      const std::size_t first = line.find(':');
      const std::size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
      if (second == line.npos) return;
      const std::string_view controllers = line.substr(first + 1, second - first - 1);
      const std::string below(line.substr(second + 1));
      if (controllers.empty()) {
        add_cgroup(found, "/sys/fs/cgroup", below);
        add_cgroup(found, "/sys/fs/cgroup/unified", below);
      } else if (controllers == "pids") {
        add_cgroup(found, "/sys/fs/cgroup/pids", below);
      }
    });
  }

  void add_cgroup(std::vector<thread_limit>& found, const std::string& mount,
                  std::string below) const {
    for (;;) {
      while (!below.empty() && below.back() == '/')
        below.pop_back();
      const std::string folder = mount + below;
      const std::uint64_t limit = number_in(text_of_file(folder + "/pids.max"));
      const std::uint64_t used = number_in(text_of_file(folder + "/pids.current"));
      if (limit != none) {
        found.push_back({limit, used == none ? 0 : used, 1, "pids.max of " + folder});
      }
      if (below.empty()) return;
      below.resize(below.rfind('/') == below.npos ? 0 : below.rfind('/'));
    }
  }

  /// RLIMIT_NPROC counts the threads of the user, and does not bind root or CAP_SYS_RESOURCE.
  void add_process_count(std::vector<thread_limit>& found) const {
    ::rlimit bound{};
    if (::getrlimit(RLIMIT_NPROC, &bound) != 0 || bound.rlim_cur == RLIM_INFINITY) return;
    if (::getuid() == 0 || may_exceed_process_count()) return;
    const std::string user = std::to_string(::getuid());
    found.push_back({bound.rlim_cur, threads_of_user(), 1, "RLIMIT_NPROC of uid " + user});
  }

  [[nodiscard]] bool may_exceed_process_count() const {
    const std::string status = text_of_file("/proc/self/status");
    const std::string held(line_after(status, "CapEff:"));
    constexpr unsigned sys_admin = 21;
    constexpr unsigned sys_resource = 24;
    const std::uint64_t bits = std::strtoull(held.c_str(), nullptr, 16);
    return ((bits >> sys_admin) & 1U) != 0 || ((bits >> sys_resource) & 1U) != 0;
  }

  [[nodiscard]] std::uint64_t threads_of_user() const {
    const std::uint64_t user = ::getuid();
    std::uint64_t threads = 0;
    const std::unique_ptr<::DIR, close_folder> folder(::opendir((root_ + "/proc").c_str()));
    while (folder) {
      const ::dirent* const entry = ::readdir(folder.get());
      if (entry == nullptr) break;
      if (std::isdigit(static_cast<unsigned char>(entry->d_name[0])) == 0) continue;
      const std::string status = text_of_file(std::string("/proc/") + entry->d_name + "/status");
      if (number_in(line_after(status, "Uid:")) != user) continue;
      const std::uint64_t counted = number_in(line_after(status, "Threads:"));
      threads += counted == none ? 0 : counted;
    }
    return threads;
  }

  /// Address space and private data, where they are bounded.
  void add_memory(std::vector<thread_limit>& found, std::size_t stack_bytes) const {
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const std::uint64_t each = (stack_bytes == 0 ? default_stack_bytes() : stack_bytes) + page;
    const std::string status = text_of_file("/proc/self/status");
    const auto add = [&](int resource, std::string_view key, const char* name) {
      ::rlimit bound{};
      const auto which = static_cast<decltype(RLIMIT_AS)>(resource);
      if (::getrlimit(which, &bound) != 0 || bound.rlim_cur == RLIM_INFINITY) return;
      const std::uint64_t used = number_in(line_after(status, key));
      found.push_back({bound.rlim_cur, used == none ? 0 : used * 1024, each, name});
    };
    add(RLIMIT_AS, "VmSize:", "RLIMIT_AS, bytes of address space");
    add(RLIMIT_DATA, "VmData:", "RLIMIT_DATA, bytes of private memory");
  }

  [[nodiscard]] static std::uint64_t default_stack_bytes() {
    constexpr std::uint64_t without_limit = 8ULL << 20;
    ::rlimit bound{};
    if (::getrlimit(RLIMIT_STACK, &bound) != 0 || bound.rlim_cur == RLIM_INFINITY) {
      return without_limit;
    }
    return bound.rlim_cur;
  }

  /// Bounds of the whole machine, and the number of mappings (a stack and its guard are two).
  void add_system(std::vector<thread_limit>& found) const {
    const std::string load = text_of_file("/proc/loadavg");  // "0.1 0.2 0.3 2/345 6789"
    const std::size_t slash = load.find('/');
    const std::uint64_t threads =
        slash == load.npos ? none : number_in(std::string_view(load).substr(slash + 1));
    const auto add = [&](const char* path, std::uint64_t used, std::uint64_t each) {
      const std::uint64_t limit = number_in(text_of_file(path));
      if (limit != none && used != none) found.push_back({limit, used, each, path});
    };
    add("/proc/sys/kernel/threads-max", threads, 1);
    add("/proc/sys/kernel/pid_max", threads, 1);
    std::uint64_t mappings = 0;
    for_each_line(text_of_file("/proc/self/maps"), [&](std::string_view) { ++mappings; });
    add("/proc/sys/vm/max_map_count", mappings, 2);
  }

  const std::string root_;  // before every path; empty outside tests
};

/// The bound that is the likeliest cause of a refused thread. Ask while the others still run.
[[nodiscard]] inline thread_limit find_thread_limit(std::size_t stack_bytes) {
  return thread_limit_reader().tightest(stack_bytes);
}

#else

[[nodiscard]] inline thread_limit find_thread_limit(std::size_t) {
  return {};
}

#endif

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
