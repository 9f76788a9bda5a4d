// Calls a loader and takes what it gives: Value, loaded<Value>, an optional of them, or a throw.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: calls under a lock.
// Threads: as the loader.
// Progress: as the loader.
// Callbacks: the loader; copies and moves of Value. No lock held.
// Exceptions: none leave; they are part of the result.
// Lifetime: plain.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "../clock.hpp"
#include "cache_flight.hpp"
#include "cache_result.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What a loader said of one key.
template <class Value>
struct cache_arrival {
  cache_landing<Value> landing{};
  bool has_version = false;        ///< the source told landing.version itself
  duration ttl = duration::max();  ///< the entry's own
};

template <class Value, class Answer>
void take_answer(Answer&& answer, cache_arrival<Value>& got) {
  using plain = std::remove_cvref_t<Answer>;
  if constexpr (std::same_as<plain, std::optional<Value>> ||
                std::same_as<plain, std::optional<loaded<Value>>>) {
    if (answer) take_answer(*std::forward<Answer>(answer), got);
  } else if constexpr (std::same_as<plain, loaded<Value>>) {
    got.landing.value = std::make_shared<const Value>(std::forward<Answer>(answer).value);
    got.has_version = answer.version != 0;
    if (got.has_version) got.landing.version = answer.version;
    got.ttl = answer.ttl;
  } else {
    static_assert(std::convertible_to<Answer, Value>,
                  "loading_cache: a loader returns Value, loaded<Value>, or an optional of them");
    got.landing.value = std::make_shared<const Value>(std::forward<Answer>(answer));
  }
}

/// @param version  what the answer is worth if the source tells no version itself
template <class Value, class Key, class Loader>
cache_arrival<Value> call_loader(Loader& loader, const Key& key, std::uint64_t version) noexcept {
  cache_arrival<Value> got;
  got.landing.version = version;
  VELTRIX_TRY {
    take_answer(loader(key), got);
  }
  VELTRIX_CATCH_ALL {
    got = {};
    got.landing.error = std::current_exception();
  }
  return got;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
