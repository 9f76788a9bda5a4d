// How many workers a pool has, should have, and sees come and go.
// Use for: pool_core. Internal.
// Not for: doing anything about it; it counts and answers.
// Threads: all under the pool's mutex.
// Progress: O(1).
// Callbacks: none.
// Exceptions: std::bad_alloc by the texts of answers; else none.
// Lifetime: a value of its pool.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "config.hpp"
#include "pool_answers.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// The numbers of a pool; its mutex guards each of them.
///
/// I1: running counts registrations: each worker makes its own, after its hook, and ends it. With
///     no hook to run, coming to the gate is what registers; it counts once the batch is let in.
/// I2: starting > 0 only from a growth until its last worker has registered; no other change is
///     accepted meanwhile, so a worker that starts is always wanted.
/// I3: leaving counts workers from their deregistration until they were joined; hooked those of
///     them that are not listed as gone yet: with no hook to run, none.
struct pool_size {
  std::size_t target = 0;        ///< what was accepted last
  std::size_t kept = 0;          ///< workers above it retire
  std::size_t running = 0;       ///< see I1
  std::size_t starting = 0;      ///< see I2
  std::size_t leaving = 0;       ///< see I3
  std::size_t hooked = 0;        ///< see I3
  std::uint64_t generation = 0;  ///< moves with target
  bool changes = false;          ///< a resize has not answered
  bool grows = false;            ///< a batch is neither let in nor dismissed
  bool closed = false;           ///< for good

  /// Those too many find out by themselves, once they are awake.
  void take(std::size_t wanted) noexcept {
    if (wanted != target) ++generation;
    target = kept = wanted;
  }

  /// So many workers run from here to their count_out().
  void count_in(std::size_t workers) noexcept {
    starting -= workers;
    running += workers;
  }

  void count_out() noexcept {
    --running;
    ++leaving;
  }

  /// Of those that are kept no more.
  [[nodiscard]] std::size_t too_many() const noexcept {
    return running > kept ? running - kept : 0;
  }

  [[nodiscard]] std::size_t retiring() const noexcept {
    return leaving + (running > target ? running - target : 0);
  }

  [[nodiscard]] bool settled() const noexcept {
    return running == target && starting == 0 && leaving == 0;
  }

  /// Whether nothing is to come from workers before it is settled: threads are to be joined, at
  /// most.
  [[nodiscard]] bool at_rest() const noexcept {
    return starting == 0 && running <= target && hooked == 0;
  }

  [[nodiscard]] answer_source answer_from(const char* where) const {
    answer_source from{{}, where};
    from.state.generation = generation;
    from.state.target = target;
    from.state.running = running;
    from.state.starting = starting;
    from.state.retiring = retiring();
    return from;
  }

  /// The answers that need no look at the size asked for; none: go on.
  [[nodiscard]] std::optional<resize_result> answer_early(const char* where,
                                                          const resize_options& how) const {
    if (closed) return shut_down(answer_from(where));
    if (how.expect_generation && *how.expect_generation != generation) {
      return generation_moved(answer_from(where), *how.expect_generation);
    }
    if (changes) return resize_in_flight(answer_from(where));
    if (starting != 0) return still_starting(answer_from(where));
    return std::nullopt;
  }
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
