// A shared_ptr that a mutex, a shared_mutex or std::atomic guards: what services write by hand.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>

namespace veltrix_bench {

struct by_mutex {
  static constexpr const char* name = "mutex + shared_ptr";
  using mutex = std::mutex;
  using read_lock = std::lock_guard<mutex>;
};

struct by_shared_mutex {
  static constexpr const char* name = "shared_mutex + shared_ptr";
  using mutex = std::shared_mutex;
  using read_lock = std::shared_lock<mutex>;
};

template <class Value, class By>
class locked_pointer {
 public:
  static constexpr const char* name = By::name;

  class reader {
   public:
    explicit reader(locked_pointer& of) : of_(of) {}
    template <class Use>
    auto read(Use use) {
      return use(*of_.load());
    }

   private:
    locked_pointer& of_;
  };

  class writer {
   public:
    explicit writer(locked_pointer& of) : of_(of) {}
    void store(const Value& value) {
      auto next = std::make_shared<const Value>(value);
      const std::lock_guard lock(of_.mutex_);
      of_.value_.swap(next);
    }  // the old one goes after the unlock

   private:
    locked_pointer& of_;
  };

 private:
  std::shared_ptr<const Value> load() {
    const typename By::read_lock lock(mutex_);
    return value_;
  }

  typename By::mutex mutex_;  // guards value_
  std::shared_ptr<const Value> value_ = std::make_shared<const Value>();
};

#ifdef __cpp_lib_atomic_shared_ptr
template <class Value>
class atomic_pointer {
 public:
  static constexpr const char* name = "std::atomic<shared_ptr>";

  class reader {
   public:
    explicit reader(const atomic_pointer& of) : of_(of) {}
    template <class Use>
    auto read(Use use) {
      return use(*of_.value_.load(std::memory_order_acquire));
    }

   private:
    const atomic_pointer& of_;
  };

  class writer {
   public:
    explicit writer(atomic_pointer& of) : of_(of) {}
    void store(const Value& value) {
      of_.value_.store(std::make_shared<const Value>(value), std::memory_order_release);
    }

   private:
    atomic_pointer& of_;
  };

 private:
  std::atomic<std::shared_ptr<const Value>> value_{std::make_shared<const Value>()};
};
#endif

}  // namespace veltrix_bench
