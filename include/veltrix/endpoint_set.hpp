// The hosts of a service as last resolved, a stable part of them, kept when the resolver fails.
// Use for: between a resolver (DNS, a registry) and a connection pool or an outlier_set.
// Not for: resolving; hand it what a resolver said, or that it failed.
// Threads: all members may be called from any thread.
// Progress: a short lock; resolved() is O(n log n) outside of it.
// Callbacks: none.
// Exceptions: std::invalid_argument on bad options, std::bad_alloc; the old set stays then.
// Lifetime: a view lives as long as somebody holds it.
// Guide: docs/endpoint_set.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clock.hpp"
#include "detail/option_check.hpp"
#include "detail/sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Where a host listens.
struct endpoint {
  std::string host;
  std::uint16_t port = 0;

  friend auto operator<=>(const endpoint&, const endpoint&) = default;
};

struct endpoint_set_options {
  std::uint32_t subset = 20;                          ///< endpoints used at most; 1 to 10,000
  duration ttl = std::chrono::seconds(30);            ///< ask again after this; 1 ms to 24 h
  duration complain_each = std::chrono::seconds(30);  ///< one text per failing while; 1 ms to 24 h
  std::uint64_t instance = 0;  ///< instances with different numbers use different parts
};

/// What a resolution came to.
struct endpoint_view {
  std::vector<endpoint> endpoints{};  ///< sorted, without doubles, at most `subset`
  std::uint64_t generation = 0;       ///< grows when `endpoints` changes; 0: never resolved
  std::size_t known = 0;              ///< how many there were before the choice
  time_point resolved_at{};           ///< of the last success
};

/// Keeps the last good set: a failure, or an empty answer, changes nothing but the time at which to
/// ask again. The part is chosen by rendezvous hashing: when hosts come or go, the others stay.
/// Source: D. Thaler, C. Ravishankar, "Using name-based mappings", IEEE/ACM ToN 1998.
class endpoint_set {
 public:
  /// Throws std::invalid_argument when an option is out of its bounds.
  explicit endpoint_set(endpoint_set_options options = {})
      : options_(checked(options)), view_(std::make_shared<const endpoint_view>()) {}
  endpoint_set(const endpoint_set&) = delete;
  endpoint_set& operator=(const endpoint_set&) = delete;

  /// The resolver answered at `now`. Result: true when the endpoints in use changed; an empty
  /// answer changes nothing.
  bool resolved(std::vector<endpoint> found, time_point now) {
    if (found.empty()) return false;
    auto next = std::make_shared<endpoint_view>();
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    next->known = found.size();
    next->endpoints = chosen(std::move(found));
    next->resolved_at = now;
    const lock_guard lock(mutex_);
    const bool changed = next->endpoints != view_->endpoints;
    next->generation = view_->generation + (changed ? 1 : 0);
    view_ = std::move(next);
    ask_at_ = saturating_add(now, options_.ttl);
    failing_since_.reset();
    return changed;
  }

  /// Who did not answer, and why.
  struct failure {
    std::string_view name;    ///< what was asked for
    std::string_view server;  ///< who was asked
    std::string_view why;
  };
  /// The resolver failed at `now`. Result: a text to log, once per `complain_each`, else nothing.
  /// It is asked again after a tenth of the ttl.
  [[nodiscard]] std::optional<std::string> failed(const failure& told, time_point now) {
    const lock_guard lock(mutex_);
    ask_at_ = saturating_add(now, options_.ttl / 10);
    if (failing_since_ && now - complained_at_ < options_.complain_each) return std::nullopt;
    const time_point since = failing_since_.value_or(now);
    std::string text = complaint(told, since, now);
    failing_since_ = since;  // after what may throw: a text that nobody got was not given
    complained_at_ = now;
    return text;
  }

  /// True when it is time to ask the resolver: at first, after the ttl, and while it fails.
  [[nodiscard]] bool due(time_point now) const noexcept {
    const lock_guard lock(mutex_);
    return now >= ask_at_;
  }
  /// The endpoints in use. Never null.
  [[nodiscard]] std::shared_ptr<const endpoint_view> current() const noexcept {
    const lock_guard lock(mutex_);
    return view_;
  }
  [[nodiscard]] const endpoint_set_options& options() const noexcept { return options_; }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;

  static const endpoint_set_options& checked(const endpoint_set_options& options) {
    constexpr std::string_view where = "endpoint_set";
    const duration least = std::chrono::milliseconds(1);
    const duration day = std::chrono::hours(24);
    detail::require_between(where, "subset", options.subset, 1U, 10'000U);
    detail::require_between(where, "ttl", options.ttl, least, day);
    detail::require_between(where, "complain_each", options.complain_each, least, day);
    return options;
  }

  [[nodiscard]] std::string complaint(const failure& told, time_point since, time_point now) const {
    std::string text("veltrix: endpoint_set: ");
    text.append(told.name).append(": ").append(told.server).append(" said: ").append(told.why);
    text.append("; failing for ").append(detail::text_of(now - since));
    if (view_->generation == 0) return text.append("; there is no endpoint yet");
    text.append("; ").append(std::to_string(view_->endpoints.size()));
    text.append(" endpoints from ").append(detail::text_of(now - view_->resolved_at));
    return text.append(" ago stay in use");
  }

  /// FNV-1a, mixed as splitmix64 does: the same on every machine.
  [[nodiscard]] std::uint64_t score(const endpoint& each) const noexcept {
    std::uint64_t hash = 0xcbf29ce484222325ULL ^ options_.instance * 0x9e3779b97f4a7c15ULL;
    for (const char letter : each.host)
      hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3ULL;
    hash = (hash ^ each.port) * 0x100000001b3ULL;
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ULL;
    hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebULL;
    return hash ^ (hash >> 31);
  }

  [[nodiscard]] std::vector<endpoint> chosen(std::vector<endpoint> found) const {
    if (found.size() <= options_.subset) return found;
    std::sort(found.begin(), found.end(), [this](const endpoint& one, const endpoint& other) {
      return score(one) > score(other);
    });
    found.resize(options_.subset);
    std::sort(found.begin(), found.end());
    return found;
  }

  const endpoint_set_options options_;
  mutable detail::sync::mutex mutex_;  // guards everything below
  std::shared_ptr<const endpoint_view> view_;
  time_point ask_at_{duration::min()};
  std::optional<time_point> failing_since_;
  time_point complained_at_{};
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
