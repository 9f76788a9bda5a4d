// SPDX-License-Identifier: BSL-1.0
#include "model/state_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace veltrix_model {

namespace {

std::uint64_t* reserve(std::size_t count) noexcept {
  void* const memory = ::mmap(nullptr, count * sizeof(std::uint64_t), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "model: no memory for %zu states\n", count);
    std::abort();
  }
  return static_cast<std::uint64_t*>(memory);
}

}  // namespace

void state_memory::begin_search(bool on, bool total) noexcept {
  on_ = on;
  total_ = total;
  if (states_ != nullptr) ::munmap(states_, room_ * sizeof *states_);
  states_ = nullptr;
  count_ = room_ = 0;
}

void state_memory::begin_execution() noexcept {
  ++execution_;
  for (std::uint64_t& each : past_)
    each = 0;
  everywhere_ = ordered_ = 0;
}

/// Objects beyond the room share the last trail, as if they were one.
state_memory::trail& state_memory::trail_of(const void* object) noexcept {
  std::size_t at = mix(0, reinterpret_cast<std::uintptr_t>(object)) % trails;
  for (std::size_t tried = 0; tried < trails / 2; ++tried) {
    trail& found = trails_[at];
    if (found.execution == execution_ && found.object == object) return found;
    if (found.execution != execution_) return found = {object, execution_, 0, 0};
    at = (at + 1) % trails;
  }
  return trails_[0];
}

std::uint64_t& state_memory::place_of(std::uint64_t state) noexcept {
  std::size_t at = static_cast<std::size_t>(state >> 4) & (room_ - 1);
  while (states_[at] != 0 && (states_[at] & ~used_bits) != (state & ~used_bits))
    at = (at + 1) & (room_ - 1);
  return states_[at];
}

void state_memory::grow() noexcept {
  std::uint64_t* const old = std::exchange(states_, nullptr);
  const std::size_t had = room_;
  room_ = std::max(fewest, 2 * had);
  states_ = reserve(room_);
  for (std::size_t i = 0; i < had; ++i) {
    if (old[i] != 0) place_of(old[i]) = old[i];
  }
  if (old != nullptr) ::munmap(old, had * sizeof *old);
}

bool state_memory::was_in(std::uint64_t state, unsigned used) noexcept {
  if (used >= used_bits) {  // too many to be compared
    state = mix(state, used);
    used = 0;
  }
  state |= std::uint64_t{1} << 63;  // never 0
  if (2 * count_ >= room_ && room_ < most) grow();
  std::uint64_t& place = place_of(state);
  if (place != 0 && (place & used_bits) <= used) return true;
  if (place == 0) {
    if (2 * count_ >= room_) return false;  // no more is kept
    ++count_;
  }
  place = (state & ~used_bits) | used;
  return false;
}

}  // namespace veltrix_model
