// A small seeded generator for tests: the same seed gives the same sequence on every library.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

namespace veltrix_test {

/// splitmix64.
class random_source {
 public:
  explicit random_source(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t mixed = (state_ += 0x9e3779b97f4a7c15ULL);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
  }

  /// 0 to bound - 1; bound is at least 1. The bias below 2^-32 does not matter to a test.
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }

 private:
  std::uint64_t state_;
};

}  // namespace veltrix_test
