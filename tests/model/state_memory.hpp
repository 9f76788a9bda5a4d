// Remembers which states a search has been in, by what led there.
// A state is what the operations so far have made of it, and in which order they touched the same
// objects; the order of operations that touch different ones does not matter. So the memory keeps,
// for each thread, a hash of all that happened before its last operation, and of a state the hashes
// of its threads. Whatever else a thread may notice of another has to be told: see observe().
// Equal states may be taken for different ones, which costs time. The other way round it takes 59
// equal bits of two hashes, or something that was not told.
// Source: Musuvathi, Qadeer, "Partial-order reduction for context-bounded state exploration", 2007.
// Threads: as the engine.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/views.hpp"

namespace veltrix_model {

class state_memory {
 public:
  /// Whether it keeps anything.
  [[nodiscard]] bool on() const noexcept { return on_; }

  /// Forgets all states. `on`: whether this search uses it. `total`: operations on different
  /// objects may be told apart by their order, if both are seq_cst.
  void begin_search(bool on, bool total) noexcept;
  void begin_execution() noexcept;

  void begin_thread(unsigned id, unsigned starter) noexcept {
    past_[id] = mix(past_[starter], id);
    past_[starter] = mix(past_[starter], id);
  }

  /// What thread `me` does, at a place in the source.
  void local(unsigned me, std::uint64_t place) noexcept {
    past_[me] = mix(mix(past_[me], everywhere_), place);
  }
  void read(unsigned me, const void* object) noexcept {
    trail& at = trail_of(object);
    past_[me] = mix(past_[me], at.written);
    at.read += past_[me];  // the order of reads does not matter
  }
  void write(unsigned me, const void* object) noexcept {
    trail& at = trail_of(object);
    past_[me] = at.written = mix(mix(past_[me], at.written), at.read);
    at.read = 0;
  }
  void join(unsigned me, unsigned ended) noexcept { past_[me] = mix(past_[me], past_[ended]); }
  void seq_cst(unsigned me) noexcept {
    if (total_) past_[me] = ordered_ = mix(past_[me], ordered_);
  }
  /// What all threads do at once: everything is before or after it.
  void everywhere(std::uint64_t what) noexcept {
    everywhere_ = mix(everywhere_, what);
    for (const std::uint64_t each : past_)
      everywhere_ = mix(everywhere_, each);
  }
  /// Thread `me` is told something that depends on the order of operations on different objects.
  void observe(unsigned me, std::uint64_t what) noexcept { past_[me] = mix(past_[me], what + 1); }

  /// The state as it is.
  [[nodiscard]] std::uint64_t state() const noexcept {
    std::uint64_t all = everywhere_;
    for (const std::uint64_t each : past_)
      all = mix(all, each);
    return all;
  }
  /// Whether the search has been in `state` with at most `used` of its bound used up; if not, it is
  /// now.
  [[nodiscard]] bool was_in(std::uint64_t state, unsigned used) noexcept;

  [[nodiscard]] static std::uint64_t mix(std::uint64_t left, std::uint64_t right) noexcept {
    std::uint64_t mixed = left ^ (right * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull);
    mixed = (mixed ^ (mixed >> 32)) * 0xd6e8feb86659fd93ull;
    mixed = (mixed ^ (mixed >> 32)) * 0xd6e8feb86659fd93ull;
    return mixed ^ (mixed >> 32);
  }

 private:
  struct trail {
    const void* object;
    std::uint64_t execution;
    std::uint64_t written;  // the past of its last writer
    std::uint64_t read;     // the pasts of those who read that
  };
  static constexpr std::size_t trails = 1024;
  static constexpr std::size_t fewest = std::size_t{1} << 16, most = std::size_t{1} << 26;
  static constexpr std::uint64_t used_bits = 15;

  trail& trail_of(const void* object) noexcept;
  [[nodiscard]] std::uint64_t& place_of(std::uint64_t state) noexcept;
  void grow() noexcept;

  bool on_ = false;
  bool total_ = false;
  std::uint64_t past_[max_threads] = {};
  std::uint64_t everywhere_ = 0;
  std::uint64_t ordered_ = 0;
  std::uint64_t execution_ = 0;
  trail trails_[trails] = {};
  std::size_t count_ = 0, room_ = 0;
  std::uint64_t* states_ = nullptr;  // of each state 60 bits, and what was used up; 0: free
};

}  // namespace veltrix_model
