// A value that shows when it is read after its end. For tests of who may still be reading.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstdint>

namespace veltrix_test {

/// All its words say its number while it lives, and something else afterwards. The words are plain,
/// so that a race detector sees a reader that the end does not wait for.
class self_poisoning {
 public:
  explicit self_poisoning(std::uint64_t number) noexcept { words_.fill(number); }
  self_poisoning(const self_poisoning& other) noexcept : words_(other.words_) {}
  self_poisoning& operator=(const self_poisoning&) = delete;
  ~self_poisoning() {
    words_.fill(ended);
    asm volatile("" : : "r"(words_.data()) : "memory");  // else the stores are dead ones
  }

  [[nodiscard]] std::uint64_t number() const noexcept { return words_.back(); }
  [[nodiscard]] bool intact() const noexcept {
    for (const std::uint64_t word : words_) {
      if (word != words_.back() || word == ended) return false;
    }
    return true;
  }
  /// Intact, and still the one that had this number.
  [[nodiscard]] bool is(std::uint64_t number) const noexcept {
    return intact() && words_.back() == number;
  }

 private:
  static constexpr std::uint64_t ended = 0xdeadc0dedeadc0de;

  std::array<std::uint64_t, 12> words_;
};

}  // namespace veltrix_test
