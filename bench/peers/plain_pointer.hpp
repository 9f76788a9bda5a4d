// A pointer that a writer swaps among values which are never freed: the least that a read can cost.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>

namespace veltrix_bench {

/// @tparam Copy  makes a second type with the same code: how far two equal contenders differ is the
///   noise of a run
template <class Value, int Copy = 0>
class plain_pointer {
 public:
  static constexpr const char* name = Copy == 0 ? "plain pointer" : "plain pointer again";

  class reader {
   public:
    explicit reader(const plain_pointer& of) : of_(of) {}
    template <class Use>
    auto read(Use use) {
      return use(*of_.current_.load(std::memory_order_acquire));
    }

   private:
    const plain_pointer& of_;
  };

  class writer {
   public:
    explicit writer(plain_pointer& of) : of_(of) {}
    /// Not `value`, but another one that was made before: a floor need not keep what it is given.
    void store(const Value&) {
      next_ = (next_ + 1) % of_.versions_.size();
      of_.current_.store(&of_.versions_[next_], std::memory_order_release);
    }

   private:
    plain_pointer& of_;
    std::size_t next_ = 0;
  };

 private:
  std::array<Value, 64> versions_{};
  alignas(128) std::atomic<const Value*> current_{versions_.data()};
};

}  // namespace veltrix_bench
