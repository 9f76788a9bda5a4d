// Memory of one execution: given out once, never reused, so that a late use is seen.
// Replaces operator new and delete of the program; outside of executions they are malloc's.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace veltrix_model {

class execution_heap {
 public:
  /// Starts an execution; what the last one left is gone. With `keeps` it stays for good: the first
  /// execution of a search makes the statics of functions.
  void begin(bool keeps, std::uint64_t fail_at) noexcept;
  void end() noexcept;

  [[nodiscard]] void* allocate(std::size_t bytes, std::size_t alignment) noexcept;
  void free(void* memory) noexcept;
  [[nodiscard]] bool active() const noexcept { return active_; }
  [[nodiscard]] bool owns(const void* memory) const noexcept {
    return static_cast<std::size_t>(static_cast<const std::byte*>(memory) - base_) < capacity;
  }
  /// Whether `memory` belongs to the execution that runs.
  [[nodiscard]] bool is_fresh(const void* memory) const noexcept {
    return active_ && owns(memory) && static_cast<const std::byte*>(memory) >= base_ + kept_;
  }
  /// Null when everything was given back; else a text in static storage.
  [[nodiscard]] const char* describe_leak() const noexcept;
  [[nodiscard]] std::uint64_t allocations() const noexcept { return count_; }

  /// While it lives, allocations neither fail on purpose nor count: the explorer's own.
  class sparing {
   public:
    explicit sparing(execution_heap& heap) noexcept : heap_(heap) { ++heap_.spared_; }
    sparing(const sparing&) = delete;
    sparing& operator=(const sparing&) = delete;
    ~sparing() { --heap_.spared_; }

   private:
    execution_heap& heap_;
  };

 private:
  static constexpr std::size_t capacity = std::size_t{1} << 30;

  std::byte* base_ = nullptr;
  std::size_t kept_ = 0;  // bytes below belong to no execution
  std::size_t used_ = 0;
  std::uint64_t count_ = 0, number_ = 0, fail_at_ = 0;
  std::size_t live_ = 0;
  unsigned spared_ = 0;
  bool active_ = false;
  bool keeps_ = false;
};

extern execution_heap heap;

}  // namespace veltrix_model
