// SPDX-License-Identifier: BSL-1.0
// The limits of the system that keep an elastic_pool from growing: how they are read, and what the
// pool says when one of them is met. The real ones are set in child processes.
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "support/catch.hpp"
#include "support/pool.hpp"
#include "support/scale.hpp"
#include "support/skip.hpp"
#include "veltrix/detail/thread_limits.hpp"
#include "veltrix/elastic_pool.hpp"

using namespace veltrix;
using veltrix_test::listed_threads;

namespace {

namespace fs = std::filesystem;

constexpr bool under_sanitizer = veltrix_test::slowdown != 1;

/// A folder of its own under the temporary one, gone at the end.
class scratch_folder {
 public:
  scratch_folder() {
    std::string name = (fs::temp_directory_path() / "veltrix-limits-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  void write(const std::string& below, const std::string& text) const {
    const fs::path file = path_.string() + below;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  [[nodiscard]] std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

detail::thread_limit named(const std::vector<detail::thread_limit>& limits,
                           const std::string& source) {
  for (const detail::thread_limit& each : limits)
    if (each.source.find(source) != std::string::npos) return each;
  return {};
}

/// What a child process found out, told through its output.
struct child_report {
  int status = -1;   ///< its exit code
  std::string told;  ///< what it wrote
};

/// Runs `body(write)` in a child process, whose result is its exit code.
template <class Body>
child_report in_child(Body body) {
  int ends[2];
  if (::pipe(ends) != 0) return {};
  const ::pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    const auto tell = [&](const std::string& text) {
      const auto wrote = ::write(ends[1], text.data(), text.size());
      return wrote == static_cast<::ssize_t>(text.size());
    };
    ::_exit(body(tell));
  }
  ::close(ends[1]);
  child_report seen;
  char part[512];
  for (::ssize_t got; (got = ::read(ends[0], part, sizeof part)) > 0;)
    seen.told.append(part, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  seen.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return seen;
}

enum : int { child_ok, child_was_not_refused, child_has_wrong_state, child_could_not_prepare };

/// Grows a pool of two past the limit in force, twice: by a resize, and by a new pool.
template <class Tell>
int meet_the_limit(Tell tell, std::int64_t too_many) {
  elastic_pool pool(2, {.thread_name = "vx-l", .stack_bytes = 256U << 10});
  const resize_result told = pool.resize_to(too_many);
  tell("resize: " + told.message + "\nsource: " + told.limit_source +
       "\nlimit: " + std::to_string(told.limit) + "\n");
  if (told.code != refusal_code::resource_limit || told.error != EAGAIN) {
    return child_was_not_refused;
  }
  if (told.target != 2 || told.running != 2 || told.generation != 1 ||
      listed_threads("vx-l") != 2 || !pool.stats().settled()) {
    return child_has_wrong_state;
  }
  if (pool.resize_to(4).status != resize_status::ack) return child_has_wrong_state;
  try {
    const elastic_pool second(static_cast<std::size_t>(too_many),
                              {.thread_name = "vx-2", .stack_bytes = 256U << 10});
    return child_was_not_refused;
  } catch (const std::system_error& thrown) {
    tell(std::string("built: ") + thrown.what() + "\n");
    if (thrown.code().value() != EAGAIN) return child_was_not_refused;
  }
  return listed_threads("vx-2") == 0 && listed_threads("vx-l") == 4 ? child_ok
                                                                    : child_has_wrong_state;
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("thread_limit_reader reads pids.max of the cgroup and of those above it, version 2") {
  const scratch_folder root;
  root.write("/proc/self/cgroup", "0::/app.slice/worker\n");
  root.write("/sys/fs/cgroup/app.slice/worker/pids.max", "300\n");
  root.write("/sys/fs/cgroup/app.slice/worker/pids.current", "12\n");
  root.write("/sys/fs/cgroup/app.slice/pids.max", "200\n");
  root.write("/sys/fs/cgroup/app.slice/pids.current", "199\n");
  const detail::thread_limit_reader reader(root.path());
  const auto inner = named(reader.all(0), "worker");
  CHECK(inner.limit == 300);
  CHECK(inner.used == 12);
  CHECK(inner.room() == 288);
  CHECK(reader.tightest(0).source == "pids.max of /sys/fs/cgroup/app.slice");
  CHECK(reader.tightest(0).limit == 200);
  CHECK(reader.tightest(0).room() == 1);
}

TEST_CASE("thread_limit_reader reads version 1 and takes max for no limit") {
  const scratch_folder root;
  root.write("/proc/self/cgroup", "9:name=systemd:/\n8:pids:/a/b\n4:memory:/m\n0::/\n");
  root.write("/sys/fs/cgroup/pids/a/b/pids.max", "max\n");
  root.write("/sys/fs/cgroup/pids/a/pids.max", "40\n");
  const auto found = detail::thread_limit_reader(root.path()).all(0);
  CHECK(named(found, "/a/b").source.empty());
  CHECK(named(found, "pids.max").source == "pids.max of /sys/fs/cgroup/pids/a");
  CHECK(named(found, "pids.max").room() == 40);
}

TEST_CASE("thread_limit_reader reads the bounds of the machine") {
  const scratch_folder root;
  root.write("/proc/loadavg", "0.1 0.2 0.3 2/345 6789\n");
  root.write("/proc/sys/kernel/threads-max", "1000\n");
  root.write("/proc/sys/kernel/pid_max", "32768\n");
  root.write("/proc/sys/vm/max_map_count", "65530\n");
  root.write("/proc/self/maps", "a\nb\nc\n");
  const auto found = detail::thread_limit_reader(root.path()).all(0);
  CHECK(named(found, "threads-max").room() == 655);
  CHECK(named(found, "pid_max").room() == 32768 - 345);
  CHECK(named(found, "max_map_count").room() == (65530 - 3) / 2);
}

TEST_CASE("thread_limit_reader answers nothing where there is nothing to read") {
  const scratch_folder root;
  const auto found = detail::thread_limit_reader(root.path()).all(0);
  CHECK(named(found, "pids.max").source.empty());
  CHECK(named(found, "kernel").source.empty());
  CHECK(detail::thread_limit{}.room() == 0);
}

TEST_CASE("thread_limit_reader reads the limits of this process") {
  for (const detail::thread_limit& each : detail::thread_limit_reader().all(0)) {
    CAPTURE(each.source, each.limit, each.used);
    CHECK_FALSE(each.source.empty());
    CHECK(each.limit > 0);
  }
  CHECK_FALSE(detail::find_thread_limit(0).source.empty());
}

TEST_CASE("elastic_pool names RLIMIT_NPROC when the user has no thread left") {
  const child_report seen = in_child([](auto tell) {
    // Root is not bound by the limit, so the child becomes nobody; other users lower their own.
    constexpr ::uid_t nobody = 65534;
    if (::getuid() == 0 && (::setgid(nobody) != 0 || ::setuid(nobody) != 0)) {
      return static_cast<int>(child_could_not_prepare);
    }
    ::prctl(PR_SET_DUMPABLE, 1);  // or our own /proc files would still belong to root
    std::uint64_t others = 0;
    for (const auto& each : detail::thread_limit_reader().all(0))
      if (holds(each.source, "RLIMIT_NPROC")) others = each.used;
    const ::rlimit bound{others + 40, others + 40};
    if (::setrlimit(RLIMIT_NPROC, &bound) != 0) return static_cast<int>(child_could_not_prepare);
    return meet_the_limit(tell, 100);
  });
  CAPTURE(seen.told);
  if (seen.status == child_could_not_prepare) {
    veltrix_test::skip("the child process may not change its user or its RLIMIT_NPROC");
    return;
  }
  REQUIRE(seen.status == child_ok);
  CHECK(holds(seen.told, "source: RLIMIT_NPROC of uid "));
  CHECK(holds(seen.told, "resize_to: workers: got 100 asked, "));
  CHECK(holds(seen.told, " started, then EAGAIN, allowed what RLIMIT_NPROC of uid "));
  CHECK(holds(seen.told, "generation 1 with 2 workers stays in force; ask for fewer or raise"));
  CHECK(holds(seen.told, "built: veltrix: elastic_pool::elastic_pool: workers: got 100 asked"));
}

TEST_CASE("elastic_pool names the cgroup when pids.max leaves no thread") {
  const fs::path parent =
      fs::exists("/sys/fs/cgroup/pids") ? "/sys/fs/cgroup/pids" : "/sys/fs/cgroup";
  const fs::path folder = parent / ("veltrix-test-" + std::to_string(::getpid()));
  std::error_code refused;
  fs::create_directory(folder, refused);
  if (refused || !fs::exists(folder / "pids.max")) {
    fs::remove(folder, refused);
    veltrix_test::skip("no cgroup with a pids controller may be made here");
    return;
  }
  const child_report seen = in_child([&](auto tell) {
    std::ofstream(folder / "pids.max") << 40 << std::flush;
    std::ofstream joined(folder / "cgroup.procs");
    joined << ::getpid() << std::flush;
    if (!joined) return static_cast<int>(child_could_not_prepare);
    return meet_the_limit(tell, 100);
  });
  fs::remove(folder, refused);
  CAPTURE(seen.told);
  if (seen.status == child_could_not_prepare) {
    veltrix_test::skip("the child process may not enter a cgroup of its own");
    return;
  }
  REQUIRE(seen.status == child_ok);
  CHECK(holds(seen.told, "source: pids.max of " + folder.string() + "\nlimit: 40\n"));
  CHECK(holds(seen.told, "allowed what pids.max of " + folder.string() + " = 40 leaves, 40 used"));
}

TEST_CASE("elastic_pool names RLIMIT_AS when the address space is full") {
  if (under_sanitizer) {
    veltrix_test::skip("a sanitizer needs more address space than such a limit leaves");
    return;
  }
  const child_report seen = in_child([](auto tell) {
#if defined(__GLIBC__)
    // Memory for words is left when there is none for threads: what is freed here stays ours.
    ::mallopt(M_MMAP_MAX, 0);
    ::mallopt(M_TRIM_THRESHOLD, 64 << 20);
    void* volatile for_words = std::malloc(4 << 20);  // volatile: the pair must not be left out
    std::free(for_words);
#endif
    std::uint64_t used = 0;
    std::ifstream("/proc/self/statm") >> used;
    const ::rlim_t bytes = used * 4096 + 100 * (256U << 10);
    const ::rlimit bound{bytes, bytes};
    if (::setrlimit(RLIMIT_AS, &bound) != 0) return static_cast<int>(child_could_not_prepare);
    return meet_the_limit(tell, 512);
  });
  CAPTURE(seen.told);
  if (seen.status == child_could_not_prepare) {
    veltrix_test::skip("RLIMIT_AS cannot be used here");
    return;
  }
  REQUIRE(seen.status == child_ok);
  CHECK(holds(seen.told, "source: RLIMIT_AS, bytes of address space"));
}
