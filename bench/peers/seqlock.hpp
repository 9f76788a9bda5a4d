// A sequence lock over relaxed atomic words: a read copies the whole value, and again if a write
// came between. Free of data races; fit for values that are small and trivially copyable.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace veltrix_bench {

template <class Value>
class seqlock {
  static_assert(std::is_trivially_copyable_v<Value> && sizeof(Value) % sizeof(std::uint64_t) == 0);
  static constexpr std::size_t size = sizeof(Value) / sizeof(std::uint64_t);
  using words = std::array<std::uint64_t, size>;

 public:
  static constexpr const char* name = "seqlock, 64 bytes";

  class reader {
   public:
    explicit reader(const seqlock& of) : of_(of) {}
    template <class Use>
    auto read(Use use) {
      return use(of_.load());
    }

   private:
    const seqlock& of_;
  };

  /// One at a time.
  class writer {
   public:
    explicit writer(seqlock& of) : of_(of) {}
    void store(const Value& value) { of_.store(value); }

   private:
    seqlock& of_;
  };

 private:
  Value load() const {
    for (;;) {
      // (1) acquire-load; pairs with release-store (4). The words are of this sequence or later.
      const std::uint64_t before = sequence_.load(std::memory_order_acquire);
      words copied;
      for (std::size_t i = 0; i < size; ++i)
        copied[i] = words_[i].load(std::memory_order_relaxed);
      // (2) acquire-fence; pairs with release-fence (3). A later write's word shows its sequence.
      std::atomic_thread_fence(std::memory_order_acquire);
      const std::uint64_t after = sequence_.load(std::memory_order_relaxed);
      if (before == after && before % 2 == 0) return std::bit_cast<Value>(copied);
    }
  }

  void store(const Value& value) {
    const auto changed = std::bit_cast<words>(value);
    const std::uint64_t before = sequence_.load(std::memory_order_relaxed);
    sequence_.store(before + 1, std::memory_order_relaxed);
    // (3) release-fence; pairs with acquire-fence (2). Publishes: odd sequence before words.
    std::atomic_thread_fence(std::memory_order_release);
    for (std::size_t i = 0; i < size; ++i)
      words_[i].store(changed[i], std::memory_order_relaxed);
    // (4) release-store; pairs with acquire-load (1). Publishes: words before even sequence.
    sequence_.store(before + 2, std::memory_order_release);
  }

  std::atomic<std::uint64_t> sequence_{0};                // odd while a write is under way
  std::array<std::atomic<std::uint64_t>, size> words_{};  // relaxed: ordered by sequence_
};

}  // namespace veltrix_bench
