// What concurrent_map refuses, and the sentence it says then.
// Use for: concurrent_map. Internal.
// Not for: misuse that only checked builds find; see reentry.hpp.
// Threads: pure functions.
// Progress: allocates.
// Callbacks: none.
// Exceptions: those it is there to throw; std::bad_alloc.
// Lifetime: stateless.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <bit>
#include <cstddef>
#include <stdexcept>
#include <system_error>

#include "message.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// `shards`, if a map may have as many. Errors: std::invalid_argument.
inline std::size_t allowed_shards(std::size_t shards) {
  if (shards <= 65536 && std::has_single_bit(shards)) return shards;
  raise(std::invalid_argument(describe({.where = "concurrent_map::concurrent_map",
                                        .what = "options.shards",
                                        .got = text_of(shards),
                                        .allowed = "a power of two from 1 to 65536",
                                        .stays = "no map was built",
                                        .next = "leave it out for 64"})));
}

[[noreturn]] inline void raise_too_many(const char* operation, std::size_t entries,
                                        std::size_t most) {
  raise(std::length_error(
      describe({.where = operation,
                .what = "entries",
                .got = text_of(entries),
                .allowed = "0 to " + text_of(most) + ", which the allocator could hold",
                .stays = "every table is as it was",
                .next = "reserve what will be stored"})));
}

[[noreturn]] inline void raise_unequal_allocators() {
  raise(std::invalid_argument(
      describe({.where = "concurrent_map::merge",
                .what = "the source's allocator",
                .got = "one that compares unequal to this map's",
                .allowed = "an equal one, because entries move without being copied",
                .stays = "both maps are as they were",
                .next = "copy the entries with for_each and insert"})));
}

[[noreturn]] inline void raise_misaligned(std::size_t wanted) {
  raise(std::invalid_argument(describe({.where = "concurrent_map",
                                        .what = "the allocator",
                                        .got = "memory for a table that is not aligned as its type",
                                        .allowed = "multiples of " + text_of(wanted),
                                        .stays = "the table is as it was",
                                        .next = "let allocate() heed alignof of what it is for"})));
}

[[noreturn]] inline void raise_self_wait(const char* operation) {
  raise(std::system_error(
      std::make_error_code(std::errc::resource_deadlock_would_occur),
      describe({.where = operation,
                .what = "the caller",
                .got = "a callback that runs under the lock of the shard it asks for",
                .allowed = "any code outside the map's callbacks under a lock",
                .stays = "this call changed nothing",
                .next = "let the callback return first"})));
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
