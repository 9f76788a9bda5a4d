// What a loading_cache is told and what it answers: options, read modes, results, counts.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal file of public types.
// Not for: other caches.
// Threads: plain values.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: value_or_throw() throws the loader's exception, or std::runtime_error.
// Lifetime: a result keeps its value alive, with or without the cache.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "../clock.hpp"
#include "../stop_token.hpp"
#include "message.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What a cache may hold and for how long. Durations are at least 0; duration::max() is "for ever".
struct loading_cache_options {
  std::size_t max_entries = 0;                   ///< required: 1 and up
  std::uint64_t max_weight = std::uint64_t(-1);  ///< in the weigher's unit, 1 and up
  /// 1 to max_entries and max_weight; 0 picks 1 to 16, with 256 entries and units of weight or more
  /// each. A shard holds its even share of both bounds, so no entry may be heavier than that.
  std::size_t shards = 0;
  duration ttl = duration::max();            ///< after its load began, an entry is stale
  duration idle = duration::max();           ///< after its last hit, an entry is gone
  duration negative_ttl = duration::zero();  ///< how long "absent" is believed; 0: not at all
  duration refresh_after = duration::max();  ///< an older hit starts a refresh in the background
  duration stale_while_revalidate = duration::zero();  ///< stale for less: served, and refreshed
  duration stale_if_error = duration::zero();  ///< stale for less: served when the load fails
};

namespace detail {

/// The options with the number of shards chosen, or std::invalid_argument naming what cannot be.
inline loading_cache_options checked(loading_cache_options options, bool has_executor) {
  const auto refuse = [](const char* what, std::string got, const char* allowed) {
    raise(std::invalid_argument(
        describe({"loading_cache::loading_cache", what, got, allowed, "no cache was built",
                  "give each bound a value that it can keep"})));
  };
  if (options.max_entries == 0) refuse("max_entries", "0", "1 and up");
  if (options.max_weight == 0) refuse("max_weight", "0", "1 and up");
  if (options.shards > options.max_entries || options.shards > options.max_weight) {
    refuse("shards", text_of(options.shards), "0 to max_entries and max_weight");
  }
  for (const duration given :
       {options.ttl, options.idle, options.negative_ttl, options.refresh_after,
        options.stale_while_revalidate, options.stale_if_error}) {
    if (given < duration::zero()) refuse("a duration", text_of(given.count()), "0 ns and up");
  }
  const bool refreshes = options.refresh_after != duration::max() ||
                         options.stale_while_revalidate != duration::zero();
  if (refreshes && !has_executor) {
    refuse("refresh_after or stale_while_revalidate", "a time, without an executor",
           "a time with an executor");
  }
  if (options.shards == 0) {
    options.shards = 1;
    while (options.shards < 16 && options.max_entries / (options.shards * 2) >= 256 &&
           options.max_weight / (options.shards * 2) >= 256) {
      options.shards *= 2;
    }
  }
  return options;
}

}  // namespace detail

/// Where an answer comes from.
enum class cache_outcome : std::uint8_t {
  miss,       ///< get() found nothing that may be served
  hit,        ///< a fresh entry
  loaded,     ///< this call's load, or one that it joined
  stale,      ///< older than its time; see age() and error()
  absent,     ///< the source said that there is no such key
  failed,     ///< the load or the check failed, and nothing else may be served; see error()
  timed_out,  ///< the deadline passed while another caller's load was under way; it goes on
  stopped,    ///< the stop token, likewise
};

/// The newest state a read insists on.
class read_mode {
 public:
  /// What is here, if it is not stale.
  static read_mode snapshot() noexcept { return read_mode(); }
  /// A value whose load began at most `age` (0 and up) before this call, even when a newer load
  /// fails.
  static read_mode bounded(duration age) noexcept {
    VELTRIX_ASSERT(age >= duration::zero(), "read_mode::bounded with a negative age");
    read_mode mode;
    mode.max_age_ = age;
    return mode;
  }
  /// A value of at least version `required`, which the caller has just asked the source for.
  /// Nothing older is ever served. To have the check inside the call: get_linearizable().
  static read_mode at_least(std::uint64_t required) noexcept {
    read_mode mode;
    mode.required_ = required;
    return mode;
  }

  /// duration::max(): any age will do.
  [[nodiscard]] duration max_age() const noexcept { return max_age_; }
  /// 0: any version will do.
  [[nodiscard]] std::uint64_t required() const noexcept { return required_; }

 private:
  read_mode() = default;

  duration max_age_ = duration::max();
  std::uint64_t required_ = 0;
};

/// How one read behaves.
struct read_options {
  read_mode mode = read_mode::snapshot();
  /// Ends a wait for another caller's load; in real time, whatever the cache's clock.
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  stop_token token{};  ///< ends a wait for another caller's load
};

/// What a loader may return instead of a plain Value.
template <class Value>
struct loaded {
  Value value;
  std::uint64_t version = 0;       ///< the source's version of it; 0: what was announced last
  duration ttl = duration::max();  ///< this entry's own time to live; the cache's still holds.
                                   ///< At most 0: given to the readers of this load, not stored
};

namespace detail {

/// The parts of a cache_result.
template <class Value>
struct cache_answer {
  cache_outcome outcome = cache_outcome::miss;
  std::shared_ptr<const Value> value{};
  duration age{};
  std::uint64_t version = 0;
  std::exception_ptr error{};
};

}  // namespace detail

/// An answer. Holds its value alive; the cache may drop it meanwhile.
template <class Value>
class [[nodiscard]] cache_result {
 public:
  /// A miss.
  cache_result() = default;
  explicit cache_result(detail::cache_answer<Value> parts) noexcept : parts_(std::move(parts)) {}

  [[nodiscard]] cache_outcome outcome() const noexcept { return parts_.outcome; }
  /// Whether there is a value: hit, loaded or stale.
  [[nodiscard]] explicit operator bool() const noexcept { return parts_.value != nullptr; }
  /// The value; there must be one.
  [[nodiscard]] const Value& operator*() const noexcept { return *checked(); }
  [[nodiscard]] const Value* operator->() const noexcept { return checked(); }
  /// Shared ownership of the value; null if there is none.
  [[nodiscard]] const std::shared_ptr<const Value>& share() const noexcept { return parts_.value; }
  /// The value, or the loader's exception again, or std::runtime_error naming the outcome.
  [[nodiscard]] const Value& value_or_throw() const {
    if (parts_.value) return *parts_.value;
    if (parts_.error) std::rethrow_exception(parts_.error);
    detail::raise(std::runtime_error(detail::describe(
        {"cache_result::value_or_throw", "outcome", name(parts_.outcome), "hit, loaded or stale",
         "the cache is unchanged", "look at outcome() before asking for the value"})));
  }
  /// How long ago the load of this value began.
  [[nodiscard]] duration age() const noexcept { return parts_.age; }
  /// The version this value was read at; 0 if nothing was ever announced or told.
  [[nodiscard]] std::uint64_t version() const noexcept { return parts_.version; }
  /// Why the load failed: with failed, and with a value that was served in spite of it. Readers who
  /// shared the load share the exception.
  [[nodiscard]] const std::exception_ptr& error() const noexcept { return parts_.error; }

  /// "miss", "hit", ...
  [[nodiscard]] static const char* name(cache_outcome outcome) noexcept {
    constexpr const char* names[] = {"miss",   "hit",    "loaded",    "stale",
                                     "absent", "failed", "timed_out", "stopped"};
    return names[static_cast<std::size_t>(outcome)];
  }

 private:
  const Value* checked() const noexcept {
    VELTRIX_ASSERT(parts_.value != nullptr, "the value of a cache_result without one was used");
    return parts_.value.get();
  }

  detail::cache_answer<Value> parts_;
};

/// Counts since construction; each right for a moment of its own.
struct loading_cache_stats {
  std::uint64_t hits = 0;    ///< fresh entries served, absent ones included
  std::uint64_t misses = 0;  ///< reads that found nothing to serve at once
  std::uint64_t loads = 0;   ///< loaders called
  std::uint64_t load_failures = 0;
  std::uint64_t joined = 0;  ///< reads that waited for another's load
  std::uint64_t stale_served = 0;
  std::uint64_t not_stored = 0;  ///< loaded or put, but too heavy or late, overtaken, or no memory
  std::uint64_t refreshes = 0;   ///< loads begun in the background
  std::uint64_t evicted = 0;
  std::uint64_t listener_failures = 0;
  std::size_t entries = 0;  ///< those past serving included, until they are met or purged
  std::uint64_t weight = 0;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
