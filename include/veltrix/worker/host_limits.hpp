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

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../detail/config.hpp"
#include "../version.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What is known of the host. An empty optional is a limit that does not exist or was not found.
struct host_facts {
  std::int64_t cores = 1;  ///< that this process may run on, no more than its CPU quota
  std::optional<std::int64_t> pids_max{};          ///< of the cgroup that leaves the least room
  std::int64_t pids_others = 0;                    ///< in use there, this process not counted
  std::optional<std::int64_t> memory_max{};        ///< bytes; the smallest of the cgroups above
  std::optional<std::int64_t> process_limit{};     ///< RLIMIT_NPROC, unless the kernel ignores it
  std::optional<std::int64_t> address_space{};     ///< RLIMIT_AS, bytes
  std::optional<std::int64_t> memory_available{};  ///< bytes
  std::optional<std::int64_t> memory_total{};      ///< bytes
  std::string host_name{};
  std::string pod_name{};  ///< $POD_NAME

  friend bool operator==(const host_facts&, const host_facts&) = default;
};

/// A bound and the reason for it.
struct host_limit {
  std::int64_t value;
  std::string name;    ///< what to raise: "pids.max"
  std::string source;  ///< "pids.max=300, 16 kept back"

  friend bool operator==(const host_limit&, const host_limit&) = default;
};

/// Tasks kept back for the process's own threads and for those that start beside it.
inline constexpr std::int64_t tasks_kept_back = 16;

namespace detail {

/// "1 GiB", "1.5 GiB", "900 bytes": for messages, rounded down to a tenth.
[[nodiscard]] inline std::string show_bytes(std::int64_t bytes) {
  constexpr std::array<std::string_view, 5> units{"bytes", "KiB", "MiB", "GiB", "TiB"};
  std::int64_t scale = 1;
  std::size_t unit = 0;
  while (unit + 1 < units.size() && bytes / scale >= 1024) {
    scale *= 1024;
    ++unit;
  }
  std::string shown = std::to_string(bytes / scale);
  const std::int64_t tenths = bytes % scale / std::max<std::int64_t>(1, scale / 10);
  if (tenths > 0) shown.append(".").append(std::to_string(std::min<std::int64_t>(tenths, 9)));
  return shown.append(" ").append(units[unit]);
}

/// The small text files of /proc and /sys, below another root in tests.
class host_files {
 public:
  explicit host_files(std::string_view root) : root_(root) {}

  /// The whole file, or empty. Files of /proc tell no size, so it is read in pieces.
  [[nodiscard]] std::string read(const std::string& path) const {
    struct closer {
      void operator()(std::FILE* file) const noexcept { std::fclose(file); }
    };
    const std::unique_ptr<std::FILE, closer> file(std::fopen((root_ + path).c_str(), "rb"));
    std::string text;
    std::array<char, 4096> piece{};
    std::size_t got = 0;
    while (file && text.size() < most_bytes &&
           (got = std::fread(piece.data(), 1, piece.size(), file.get())) > 0) {
      text.append(piece.data(), got);
    }
    return text;
  }

 private:
  static constexpr std::size_t most_bytes = 4 * 1024 * 1024;
  std::string root_;
};

/// Takes the next piece of `text` up to `end`, which is dropped.
[[nodiscard]] constexpr std::string_view take_until(std::string_view& text, char end) noexcept {
  const std::size_t at = text.find(end);
  const std::string_view piece = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return piece;
}

/// Takes the next word, between blanks.
[[nodiscard]] constexpr std::string_view take_word(std::string_view& text) noexcept {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\n"), text.size()));
  const std::size_t end = std::min(text.find_first_of(" \t\n"), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

/// A number that is not negative; empty for "max", "unlimited", and for what does not fit.
[[nodiscard]] inline std::optional<std::int64_t> number_in(std::string_view word, int base = 10) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number, base);
  if (error != std::errc() || end == word.data() || number < 0) return std::nullopt;
  return number;
}

/// The text after `label` on the line that starts with it.
[[nodiscard]] inline std::string_view line_after(std::string_view text, std::string_view label) {
  while (!text.empty()) {
    const std::string_view line = take_until(text, '\n');
    if (line.starts_with(label)) return line.substr(label.size());
  }
  return {};
}

/// The numbers that a list such as "0-3,8" names, in order, below 8192.
[[nodiscard]] inline std::vector<std::int64_t> numbers_of_list(std::string_view list) {
  constexpr std::int64_t most_cpus = 8192;
  std::vector<std::int64_t> numbers;
  for (std::string_view words = take_word(list); !words.empty();) {
    std::string_view range = take_until(words, ',');
    const auto first = number_in(take_until(range, '-'));
    const auto last = range.empty() ? first : number_in(range);
    if (!first || !last) continue;
    for (std::int64_t cpu = *first; cpu <= *last && cpu < most_cpus; ++cpu)
      numbers.push_back(cpu);
  }
  return numbers;
}

/// /proc/self/mountinfo writes a blank as \040.
[[nodiscard]] inline std::string unescape_mount(std::string_view path) {
  std::string plain;
  while (!path.empty()) {
    const auto code =
        path.front() == '\\' && path.size() >= 4 ? number_in(path.substr(1, 3), 8) : std::nullopt;
    plain.push_back(code ? static_cast<char>(*code) : path.front());
    path.remove_prefix(code ? 4 : 1);
  }
  return plain;
}

/// Where one hierarchy of cgroups is mounted, and which part of it.
struct cgroup_mount {
  std::string root;   ///< the cgroup that the mount point shows
  std::string point;  ///< its directory
};

/// True if the comma-separated `list` has `name`.
[[nodiscard]] inline bool list_has(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    if (take_until(list, ',') == name) return true;
  }
  return false;
}

/// The mount of the version 1 controller, or of version 2 if `controller` is empty.
[[nodiscard]] inline std::optional<cgroup_mount> find_mount(std::string_view mountinfo,
                                                            std::string_view controller) {
  while (!mountinfo.empty()) {
    // id parent major:minor root point options [fields...] - type source super-options
    std::string_view line = take_until(mountinfo, '\n');
    const std::size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    std::string_view tail = line.substr(dash + 3);
    for (int skipped = 0; skipped < 3; ++skipped)
      static_cast<void>(take_word(line));
    const std::string_view root = take_word(line);
    const std::string_view point = take_word(line);
    const std::string_view type = take_word(tail);
    static_cast<void>(take_word(tail));
    const bool found = controller.empty()
                           ? type == "cgroup2"
                           : type == "cgroup" && list_has(take_word(tail), controller);
    if (found) return cgroup_mount{unescape_mount(root), unescape_mount(point)};
  }
  return std::nullopt;
}

/// The cgroup of this process under the controller (empty: version 2), from /proc/self/cgroup.
[[nodiscard]] inline std::optional<std::string> find_cgroup(std::string_view cgroups,
                                                            std::string_view controller) {
  while (!cgroups.empty()) {
    std::string_view line = take_until(cgroups, '\n');
    const std::string_view hierarchy = take_until(line, ':');
    const std::string_view controllers = take_until(line, ':');
    const bool found = controller.empty() ? hierarchy == "0" && controllers.empty()
                                          : list_has(controllers, controller);
    if (found) return std::string(line);
  }
  return std::nullopt;
}

/// The directories of this process's cgroup and of all above it that the mount shows, inner first.
[[nodiscard]] inline std::vector<std::string> cgroup_directories(const host_files& files,
                                                                 std::string_view controller) {
  const std::string mounts = files.read("/proc/self/mountinfo");
  const std::string cgroups = files.read("/proc/self/cgroup");
  const auto mount = find_mount(mounts, controller);
  const auto group = find_cgroup(cgroups, controller);
  if (!mount || !group) return {};
  std::string_view inside = *group;
  // In a container the mount shows the process's own cgroup as its root; a path that does not
  // start there ("/../..") cannot be followed, and the mount point is the best that is known.
  if (mount->root != "/") {
    const bool below = inside.starts_with(mount->root) &&
                       (inside.size() == mount->root.size() || inside[mount->root.size()] == '/');
    inside = below ? inside.substr(mount->root.size()) : std::string_view{};
  }
  if (inside.find("..") != std::string_view::npos) inside = {};
  std::vector<std::string> directories;
  while (!inside.empty() && inside != "/") {
    directories.push_back(mount->point + std::string(inside));
    inside = inside.substr(0, inside.rfind('/'));
  }
  directories.push_back(mount->point);
  return directories;
}

/// I1: only read_host_facts() makes one; it lives for one reading.
class host_reader {
 public:
  explicit host_reader(std::string_view root)
      : files_(root), status_(files_.read("/proc/self/status")) {}

  [[nodiscard]] host_facts read() const {
    host_facts facts;
    read_cores(facts);
    read_cpu_quota(facts);
    read_pids(facts);
    read_memory(facts);
    read_rlimits(facts);
    std::string name = files_.read("/proc/sys/kernel/hostname");
    name.resize(std::min(name.find('\n'), name.size()));
    facts.host_name = std::move(name);
    return facts;
  }

 private:
  [[nodiscard]] std::int64_t own_threads() const {
    std::string_view count = line_after(status_, "Threads:");
    return number_in(take_word(count)).value_or(1);
  }

  /// The mask of a process may name processors that the machine does not have.
  void read_cores(host_facts& facts) const {
    const auto allowed = numbers_of_list(line_after(status_, "Cpus_allowed_list:"));
    const auto online = numbers_of_list(files_.read("/sys/devices/system/cpu/online"));
    std::vector<std::int64_t> both;
    std::ranges::set_intersection(allowed, online, std::back_inserter(both));
    const auto& usable = online.empty() ? allowed : both;
    facts.cores = std::max<std::int64_t>(1, static_cast<std::int64_t>(usable.size()));
  }

  /// The first word of a file as a number.
  [[nodiscard]] std::optional<std::int64_t> number_at(const std::string& path) const {
    const std::string text = files_.read(path);
    std::string_view words = text;
    return number_in(take_word(words));
  }

  void read_cpu_quota(host_facts& facts) const {
    const auto bound = [&](std::optional<std::int64_t> quota, std::optional<std::int64_t> period) {
      if (!quota || *quota == 0 || !period || *period == 0) return;
      facts.cores = std::min(facts.cores, (*quota + *period - 1) / *period);
    };
    for (const std::string& directory : cgroup_directories(files_, "")) {
      const std::string text = files_.read(directory + "/cpu.max");
      std::string_view words = text;
      const auto quota = number_in(take_word(words));
      bound(quota, number_in(take_word(words)));
    }
    for (const std::string& directory : cgroup_directories(files_, "cpu")) {
      bound(number_at(directory + "/cpu.cfs_quota_us"),
            number_at(directory + "/cpu.cfs_period_us"));
    }
  }

  void read_pids(host_facts& facts) const {
    for (const std::string_view controller : {"", "pids"}) {
      for (const std::string& directory : cgroup_directories(files_, controller)) {
        const auto most = number_at(directory + "/pids.max");
        if (!most) continue;
        const std::int64_t current = number_at(directory + "/pids.current").value_or(0);
        const std::int64_t others = std::max<std::int64_t>(0, current - own_threads());
        if (facts.pids_max && *facts.pids_max - facts.pids_others <= *most - others) continue;
        facts.pids_max = most;
        facts.pids_others = others;
      }
    }
  }

  void read_memory(host_facts& facts) const {
    // Version 1 writes "no limit" as a number close to 2^63.
    constexpr std::int64_t no_limit = std::int64_t{1} << 60;
    const auto take = [&](const std::string& path) {
      const auto most = number_at(path);
      if (most && *most < no_limit) {
        facts.memory_max = std::min(facts.memory_max.value_or(no_limit), *most);
      }
    };
    for (const std::string& directory : cgroup_directories(files_, "")) {
      take(directory + "/memory.max");
    }
    for (const std::string& directory : cgroup_directories(files_, "memory")) {
      take(directory + "/memory.limit_in_bytes");
    }
    const std::string meminfo = files_.read("/proc/meminfo");
    const auto kibibytes = [&](std::string_view label) -> std::optional<std::int64_t> {
      std::string_view words = line_after(meminfo, label);
      const auto count = number_in(take_word(words));
      return count && *count < no_limit / 1024 ? std::optional(*count * 1024) : std::nullopt;
    };
    facts.memory_available = kibibytes("MemAvailable:");
    facts.memory_total = kibibytes("MemTotal:");
  }

  void read_rlimits(host_facts& facts) const {
    const std::string limits = files_.read("/proc/self/limits");
    std::string_view processes = line_after(limits, "Max processes");
    std::string_view space = line_after(limits, "Max address space");
    facts.address_space = number_in(take_word(space));
    if (!ignores_process_limit()) facts.process_limit = number_in(take_word(processes));
  }

  /// The kernel does not hold root, nor CAP_SYS_ADMIN (21) or CAP_SYS_RESOURCE (24), to it.
  [[nodiscard]] bool ignores_process_limit() const {
    std::string_view users = line_after(status_, "Uid:");
    std::string_view granted = line_after(status_, "CapEff:");
    const std::int64_t mask = number_in(take_word(granted), 16).value_or(0);
    constexpr std::int64_t enough = std::int64_t{1} << 21 | std::int64_t{1} << 24;
    return take_word(users) == "0" || (mask & enough) != 0;
  }

  host_files files_;
  std::string status_;
};

}  // namespace detail

/// Reads the facts of this process. `root` stands before /proc and /sys: empty for the real ones, a
/// directory in tests. Only the real root gives $POD_NAME.
[[nodiscard]] inline host_facts read_host_facts(std::string_view root = {}) {
  host_facts facts = detail::host_reader(root).read();
  const char* const pod = root.empty() ? std::getenv("POD_NAME") : nullptr;
  if (pod != nullptr) facts.pod_name = pod;
  return facts;
}

/// The largest pool this host allows with stacks of `stack_kib`; empty if nothing bounds it.
///
/// The smallest of: pids.max less 16 less what others use of it; RLIMIT_NPROC less 16 (tasks that
/// other processes of the user run are not known, so a pool may still fail to grow to it); the
/// memory limit, the available memory and RLIMIT_AS, each divided by the stack. Never negative.
[[nodiscard]] inline std::optional<host_limit> max_workers(const host_facts& facts,
                                                           std::int64_t stack_kib) {
  std::optional<host_limit> least;
  const auto offer = [&](host_limit limit) {
    limit.value = std::max<std::int64_t>(0, limit.value);
    if (!least || limit.value < least->value) least = std::move(limit);
  };
  const std::string kept = ", " + std::to_string(tasks_kept_back) + " kept back";
  if (facts.pids_max) {
    std::string source = "pids.max=" + std::to_string(*facts.pids_max) + kept;
    if (facts.pids_others > 0)
      source += ", " + std::to_string(facts.pids_others) + " in use by others";
    offer({*facts.pids_max - tasks_kept_back - facts.pids_others, "pids.max", std::move(source)});
  }
  if (facts.process_limit) {
    offer({*facts.process_limit - tasks_kept_back, "RLIMIT_NPROC",
           "RLIMIT_NPROC=" + std::to_string(*facts.process_limit) + kept});
  }
  const auto divide = [&](std::optional<std::int64_t> bytes, const char* name, const char* raise) {
    if (!bytes || stack_kib <= 0) return;
    offer({*bytes / (stack_kib * 1024), raise,
           std::string(name) + "=" + detail::show_bytes(*bytes) + ", " + std::to_string(stack_kib) +
               " KiB a stack"});
  };
  divide(facts.memory_max, "memory.max", "memory.max");
  divide(facts.memory_available, "MemAvailable", "the memory of the host");
  divide(facts.address_space, "RLIMIT_AS", "RLIMIT_AS");
  return least;
}

/// The memory this process may use: the cgroup's limit, RLIMIT_AS, or what the machine has.
[[nodiscard]] inline std::optional<host_limit> memory_limit(const host_facts& facts) {
  std::optional<host_limit> least;
  const auto offer = [&](std::optional<std::int64_t> bytes, const char* name, const char* raise) {
    if (!bytes || (least && least->value <= *bytes)) return;
    least = host_limit{*bytes, raise, std::string(name) + "=" + detail::show_bytes(*bytes)};
  };
  offer(facts.memory_max, "memory.max", "memory.max");
  offer(facts.address_space, "RLIMIT_AS", "RLIMIT_AS");
  offer(facts.memory_total, "MemTotal", "the memory of the host");
  return least;
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
