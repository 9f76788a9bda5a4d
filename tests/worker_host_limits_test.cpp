// What the host allows, read from made-up /proc and /sys trees and from the real ones.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/host_limits.hpp"

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>

#include "support/catch.hpp"

using veltrix::host_facts;
using veltrix::host_limit;
using veltrix::max_workers;
using veltrix::memory_limit;
using veltrix::read_host_facts;

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t mib = 1 << 20;
constexpr std::int64_t gib = 1 << 30;

/// A root directory with the files of one made-up host; removed at the end.
class fake_root {
 public:
  fake_root() {
    std::string name = (fs::temp_directory_path() / "veltrix-host-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
    put("/proc/self/status",
        "Name:\tworker\nUid:\t1000\t1000\t1000\t1000\nThreads:\t3\nCapEff:\t0000000000000000\n"
        "Cpus_allowed:\tff\nCpus_allowed_list:\t0-7\n");
    put("/proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max processes             unlimited            unlimited            processes \n"
        "Max address space         unlimited            unlimited            bytes     \n");
    put("/proc/meminfo",
        "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n");
    put("/proc/sys/kernel/hostname", "host-1\n");
    put("/sys/devices/system/cpu/online", "0-7\n");
  }
  fake_root(const fake_root&) = delete;
  fake_root& operator=(const fake_root&) = delete;
  ~fake_root() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  void put(std::string_view path, std::string_view text) const {
    const fs::path file = path_ + std::string(path);
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
  }

  [[nodiscard]] host_facts read() const { return read_host_facts(path_); }

 private:
  std::string path_;
};

constexpr const char* mount_v2 =
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

}  // namespace

TEST_CASE("host_limits a host without cgroups and limits is known by its machine") {
  const fake_root root;
  host_facts expected;
  expected.cores = 8;
  expected.memory_total = 16 * gib;
  expected.memory_available = 8 * gib;
  expected.host_name = "host-1";
  REQUIRE(root.read() == expected);
}

TEST_CASE("host_limits an empty root gives one core and nothing else") {
  host_facts expected;
  REQUIRE(read_host_facts("/nonexistent-root-of-veltrix") == expected);
  REQUIRE_FALSE(max_workers(expected, 256).has_value());
  REQUIRE_FALSE(memory_limit(expected).has_value());
}

TEST_CASE("host_limits cores are those allowed and online, within the quota") {
  const fake_root root;
  root.put("/proc/self/status", "Cpus_allowed_list:\t0-1,4,6-127\n");
  REQUIRE(root.read().cores == 5);
  root.put("/sys/devices/system/cpu/online", "0-3\n");
  REQUIRE(root.read().cores == 2);
  root.put("/proc/self/status", "Cpus_allowed_list:\tnonsense,9-2,5000000-\n");
  REQUIRE(root.read().cores == 1);

  root.put("/proc/self/status", "Cpus_allowed_list:\t0-7\n");
  root.put("/sys/devices/system/cpu/online", "0-7\n");
  root.put("/proc/self/mountinfo", mount_v2);
  root.put("/proc/self/cgroup", "0::/pod/app\n");
  root.put("/sys/fs/cgroup/pod/app/cpu.max", "max 100000\n");
  REQUIRE(root.read().cores == 8);
  root.put("/sys/fs/cgroup/pod/cpu.max", "250000 100000\n");
  REQUIRE(root.read().cores == 3);
  root.put("/sys/fs/cgroup/pod/app/cpu.max", "50000 100000\n");
  REQUIRE(root.read().cores == 1);
}

TEST_CASE("host_limits version 2 limits are looked for in every cgroup above") {
  const fake_root root;
  root.put("/proc/self/mountinfo", mount_v2);
  root.put("/proc/self/cgroup", "0::/pod/app\n");
  root.put("/sys/fs/cgroup/pod/app/pids.max", "max\n");
  root.put("/sys/fs/cgroup/pod/app/memory.max", "max\n");
  REQUIRE_FALSE(root.read().pids_max.has_value());
  REQUIRE_FALSE(root.read().memory_max.has_value());

  root.put("/sys/fs/cgroup/pod/pids.max", "300\n");
  root.put("/sys/fs/cgroup/pod/memory.max", "536870912\n");
  REQUIRE(root.read().pids_max == 300);
  REQUIRE(root.read().pids_others == 0);
  REQUIRE(root.read().memory_max == 512 * mib);

  // 43 tasks, 3 of them this process's own.
  root.put("/sys/fs/cgroup/pod/pids.current", "43\n");
  REQUIRE(root.read().pids_others == 40);
  // Fewer allowed further in, but more room: the outer one still binds.
  root.put("/sys/fs/cgroup/pod/app/pids.max", "280\n");
  root.put("/sys/fs/cgroup/pod/app/pids.current", "3\n");
  REQUIRE(root.read().pids_max == 300);
  root.put("/sys/fs/cgroup/pod/app/pids.max", "250\n");
  REQUIRE(root.read().pids_max == 250);
  REQUIRE(root.read().pids_others == 0);
  root.put("/sys/fs/cgroup/pod/app/memory.max", "268435456\n");
  REQUIRE(root.read().memory_max == 256 * mib);
}

TEST_CASE("host_limits version 1 controllers are found where they are mounted") {
  const fake_root root;
  root.put("/proc/self/mountinfo",
           "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
           "37 31 0:34 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
           "39 31 0:36 / /sys/fs/my\\040pids rw shared:3 master:1 - cgroup cgroup rw,pids\n"
           "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  root.put("/proc/self/cgroup",
           "8:pids:/a/b\n4:memory:/m\n1:cpu,cpuacct:/c\n9:name=systemd:/\n0::/\n");
  root.put("/sys/fs/my pids/a/b/pids.max", "100\n");
  root.put("/sys/fs/my pids/a/pids.max", "64\n");
  root.put("/sys/fs/my pids/a/pids.current", "13\n");
  root.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  root.put("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "1073741824\n");
  root.put("/sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "150000\n");
  root.put("/sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n");
  const host_facts facts = root.read();
  REQUIRE(facts.pids_max == 64);
  REQUIRE(facts.pids_others == 10);
  REQUIRE(facts.memory_max == gib);
  REQUIRE(facts.cores == 2);
  root.put("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "9223372036854771712\n");
  REQUIRE_FALSE(root.read().memory_max.has_value());
}

TEST_CASE("host_limits a container sees its own cgroup as the root of the mount") {
  const fake_root root;
  root.put("/proc/self/mountinfo",
           "31 23 0:28 /kube/pod7 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n");
  root.put("/proc/self/cgroup", "0::/kube/pod7/app\n");
  root.put("/sys/fs/cgroup/app/pids.max", "120\n");
  REQUIRE(root.read().pids_max == 120);
  // A path that does not start at the mount's root says nothing about what is below it.
  root.put("/proc/self/cgroup", "0::/kube/pod70/app\n");
  REQUIRE_FALSE(root.read().pids_max.has_value());
  root.put("/sys/fs/cgroup/pids.max", "90\n");
  REQUIRE(root.read().pids_max == 90);
  root.put("/proc/self/mountinfo", mount_v2);
  root.put("/proc/self/cgroup", "0::/../../other\n");
  REQUIRE(root.read().pids_max == 90);
}

TEST_CASE("host_limits RLIMIT_NPROC binds those whom the kernel holds to it") {
  const fake_root root;
  const auto status = [&](const char* uid, const char* capabilities) {
    root.put("/proc/self/status", std::string("Uid:\t") + uid + "\t0\t0\t0\nCapEff:\t" +
                                      capabilities + "\nCpus_allowed_list:\t0\n");
    return root.read().process_limit;
  };
  root.put("/proc/self/limits",
           "Max processes             300                  400                  processes \n"
           "Max address space         1073741824           unlimited            bytes     \n");
  REQUIRE(status("1000", "0000000000000000") == 300);
  REQUIRE(status("1000", "00000000a80425fb") == 300);
  REQUIRE_FALSE(status("0", "0000000000000000").has_value());
  REQUIRE_FALSE(status("1000", "0000000001000000").has_value());
  REQUIRE_FALSE(status("1000", "0000000000200000").has_value());
  REQUIRE_FALSE(status("1000", "000001ffffffffff").has_value());
  REQUIRE(root.read().address_space == gib);
}

TEST_CASE("host_limits odd files leave their facts unknown") {
  const fake_root root;
  root.put("/proc/self/mountinfo", "rubbish\n31 23 - \n" + std::string(mount_v2));
  root.put("/proc/self/cgroup", "\n::\n0::/pod\n");
  root.put("/sys/fs/cgroup/pod/pids.max", "-5\n");
  root.put("/sys/fs/cgroup/pod/memory.max", "99999999999999999999\n");
  root.put("/proc/meminfo", "MemTotal: lots\nMemAvailable: 99999999999999999 kB\n");
  root.put("/proc/self/limits", "Max processes\nMax address space   \n");
  const host_facts facts = root.read();
  REQUIRE_FALSE(facts.pids_max.has_value());
  REQUIRE_FALSE(facts.memory_max.has_value());
  REQUIRE_FALSE(facts.memory_total.has_value());
  REQUIRE_FALSE(facts.memory_available.has_value());
  REQUIRE_FALSE(facts.process_limit.has_value());
  REQUIRE_FALSE(facts.address_space.has_value());
  REQUIRE(facts.cores == 8);
}

TEST_CASE("host_limits the largest pool is the smallest of all limits and names it") {
  host_facts facts;
  facts.memory_available = 64 * gib;
  REQUIRE(max_workers(facts, 256) ==
          host_limit{262'144, "the memory of the host", "MemAvailable=64 GiB, 256 KiB a stack"});
  facts.address_space = 32 * gib;
  REQUIRE(max_workers(facts, 256) ==
          host_limit{131'072, "RLIMIT_AS", "RLIMIT_AS=32 GiB, 256 KiB a stack"});
  facts.memory_max = 1536 * mib;
  REQUIRE(max_workers(facts, 256) ==
          host_limit{6144, "memory.max", "memory.max=1.5 GiB, 256 KiB a stack"});
  REQUIRE(max_workers(facts, 8192)->value == 192);
  facts.process_limit = 1000;
  REQUIRE(max_workers(facts, 256) ==
          host_limit{984, "RLIMIT_NPROC", "RLIMIT_NPROC=1000, 16 kept back"});
  facts.pids_max = 300;
  REQUIRE(max_workers(facts, 256) == host_limit{284, "pids.max", "pids.max=300, 16 kept back"});
  facts.pids_others = 20;
  REQUIRE(max_workers(facts, 256) ==
          host_limit{264, "pids.max", "pids.max=300, 16 kept back, 20 in use by others"});
  facts.pids_others = 400;
  REQUIRE(max_workers(facts, 256)->value == 0);
}

TEST_CASE("host_limits the memory limit is the smallest of cgroup, RLIMIT_AS and machine") {
  host_facts facts;
  facts.memory_total = 16 * gib;
  REQUIRE(memory_limit(facts) == host_limit{16 * gib, "the memory of the host", "MemTotal=16 GiB"});
  facts.address_space = 8 * gib;
  REQUIRE(memory_limit(facts)->name == "RLIMIT_AS");
  facts.memory_max = 512 * mib;
  REQUIRE(memory_limit(facts) == host_limit{512 * mib, "memory.max", "memory.max=512 MiB"});
}

TEST_CASE("host_limits bytes are shown with one decimal, rounded down") {
  using veltrix::detail::show_bytes;
  REQUIRE(show_bytes(0) == "0 bytes");
  REQUIRE(show_bytes(1023) == "1023 bytes");
  REQUIRE(show_bytes(1024) == "1 KiB");
  REQUIRE(show_bytes(1536) == "1.5 KiB");
  REQUIRE(show_bytes(mib - 1) == "1023.9 KiB");
  REQUIRE(show_bytes(gib) == "1 GiB");
  REQUIRE(show_bytes(std::numeric_limits<std::int64_t>::max()) == "8388607.9 TiB");
}

TEST_CASE("host_limits the real host has a core, memory and a name") {
  const host_facts facts = read_host_facts();
  REQUIRE(facts.cores >= 1);
  REQUIRE(facts.cores <= sysconf(_SC_NPROCESSORS_CONF));
  REQUIRE(facts.memory_total.value_or(0) > 16 * mib);
  REQUIRE(facts.memory_available.value_or(0) > 0);
  REQUIRE_FALSE(facts.host_name.empty());
  REQUIRE(setenv("POD_NAME", "pod-7", 1) == 0);
  REQUIRE(read_host_facts().pod_name == "pod-7");
  REQUIRE(read_host_facts("/nonexistent-root-of-veltrix").pod_name.empty());
  REQUIRE(unsetenv("POD_NAME") == 0);
  REQUIRE(read_host_facts().pod_name.empty());
}
