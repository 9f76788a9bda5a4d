// What the tests of pools share: waiting for a state, holding workers, collecting failures, and a
// witness that counts threads from outside.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <fstream>
#include <latch>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "veltrix/elastic_pool.hpp"

namespace veltrix_test {

/// Looks again and again until `holds()`; false after half a minute.
template <class Predicate>
bool eventually(Predicate holds) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::yield();
  }
  return true;
}

/// Keeps `count` workers inside a task for as long as it lives.
class held_workers {
 public:
  held_workers(veltrix::elastic_pool& pool, std::ptrdiff_t count) : arrived_(count) {
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      auto hold = [this] {
        arrived_.count_down();
        released_.wait();
      };
      handles_.push_back(pool.submit(hold));
    }
    arrived_.wait();
  }
  held_workers(const held_workers&) = delete;
  held_workers& operator=(const held_workers&) = delete;
  ~held_workers() {
    released_.count_down();
    for (auto& each : handles_)
      each.wait();
  }

 private:
  std::latch arrived_;
  std::latch released_{1};
  std::vector<veltrix::task_handle<void>> handles_;
};

/// Keeps what exceptions say.
class failure_log {
 public:
  auto handler() {
    return [this](const std::exception_ptr& failure) {
      std::string text = "not a std::exception";
      try {
        std::rethrow_exception(failure);
      } catch (const std::exception& told) {
        text = told.what();
      } catch (...) {}
      const std::lock_guard lock(mutex_);
      texts_.insert(text);
    };
  }

  std::multiset<std::string> texts() const {
    const std::lock_guard lock(mutex_);
    return texts_;
  }

 private:
  mutable std::mutex mutex_;
  std::multiset<std::string> texts_;
};

/// Threads of this process whose name starts with `prefix` and a dash, as the kernel lists them.
inline std::size_t listed_threads(const std::string& prefix) {
  std::size_t found = 0;
  for (const auto& each : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(each.path() / "comm");
    std::string name;
    if (std::getline(file, name) && name.rfind(prefix + "-", 0) == 0) ++found;
  }
  return found;
}

/// Of those, how many the kernel lists as waiting for something.
inline std::size_t sleeping_threads(const std::string& prefix) {
  std::size_t found = 0;
  for (const auto& each : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(each.path() / "stat");  // "123 (vx-w-0) S ..."
    std::string line;
    if (std::getline(file, line) && line.find("(" + prefix + "-") != line.npos &&
        line.find(") S ") != line.npos)
      ++found;
  }
  return found;
}

}  // namespace veltrix_test
