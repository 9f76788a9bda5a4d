// One reader and one writer as close together as they get: a fence left out on either side shows.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "veltrix/reclaim.hpp"

namespace veltrix_test {

/// Keeps the calling thread on the CPU `number`, counted among those it may use; if there are
/// fewer, it stays where it is.
inline void stay_on_cpu(int number) {
  ::cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || number-- != 0) continue;
    ::cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ::sched_setaffinity(0, sizeof one, &one);
  }
}

/// The writer replaces an object, looks, and at once marks what it may dispose of; the reader shows
/// an object, and sees whether it is marked then. Objects come from a pool, so that little else
/// happens between the two, and nothing that would order them.
class collisions {
 public:
  explicit collisions(veltrix::reclaim_domain& domain) : domain_(domain), objects_(64) {
    for (object& each : objects_) {
      each.owner = this;
      unused_.push_back(&each);
    }
    current_.store(taken(), std::memory_order_relaxed);
  }

  /// Result: reads that saw an object after its end. It lasts `how_long`. The two threads are kept
  /// on CPUs of their own: on one CPU they take turns, and nothing collides.
  std::uint64_t run(std::chrono::milliseconds how_long) {
    std::thread reader([this] { read(); });
    std::thread writer([this, how_long] { write(how_long); });
    writer.join();
    reader.join();
    return wrong_;
  }
  [[nodiscard]] std::uint64_t writes() const noexcept { return writes_; }
  [[nodiscard]] std::uint64_t reads() const noexcept { return reads_; }

 private:
  struct object : veltrix::reclaimable {
    std::atomic<std::uint64_t> number{0};  // 0: it has ended
    collisions* owner = nullptr;
  };
  struct give_back {
    void operator()(object* ended) const {
      ended->number.store(0, std::memory_order_relaxed);
      ended->owner->unused_.push_back(ended);
    }
  };

  object* taken() {
    object* const fresh = unused_.back();
    unused_.pop_back();
    fresh->number.store(++writes_, std::memory_order_relaxed);
    return fresh;
  }

  void replace(veltrix::retire_list<object, give_back>& garbage) {
    object* const old = current_.exchange(taken(), std::memory_order_acq_rel);
    static_cast<void>(garbage.retire(*old, veltrix::time_point()));
    static_cast<void>(garbage.collect(veltrix::time_point()));
  }

  void write(std::chrono::milliseconds how_long) {
    stay_on_cpu(0);
    veltrix::retire_list<object, give_back> garbage(domain_);
    const auto end = std::chrono::steady_clock::now() + how_long;
    while (std::chrono::steady_clock::now() < end) {
      for (int i = 0; i < 100; ++i)
        replace(garbage);
    }
    done_.store(true, std::memory_order_release);
    while (!left_.load(std::memory_order_acquire))
      std::this_thread::yield();  // the list must not end while it is read
  }

  void read() {
    stay_on_cpu(1);
    auto& slot = *domain_.record_of_this_thread()->lasting();
    const auto mode = domain_.mode();
    while (!done_.load(std::memory_order_relaxed)) {
      const object* const shown = veltrix::detail::show(current_, slot, mode);
      const std::uint64_t number = shown->number.load(std::memory_order_relaxed);
      bool good = number != 0;
      for (int i = 0; i < 4; ++i)
        good = good && shown->number.load(std::memory_order_relaxed) == number;
      wrong_ += good ? 0 : 1;
      ++reads_;
      veltrix::detail::reader_record::clear(slot);
    }
    left_.store(true, std::memory_order_release);
  }

  veltrix::reclaim_domain& domain_;
  std::vector<object> objects_;
  std::vector<object*> unused_;  // the writer's
  std::uint64_t writes_ = 0;     // likewise
  alignas(64) veltrix::detail::sync::atomic<object*> current_{nullptr};
  alignas(64) std::atomic<bool> done_{false};
  std::atomic<bool> left_{false};
  alignas(64) std::uint64_t reads_ = 0;  // the reader's, until it has ended
  std::uint64_t wrong_ = 0;              // likewise
};

}  // namespace veltrix_test
