// An attempt of two copies, as the layer hedge of a policy makes it.
// Use for: the synchronous and the asynchronous form of retry under hedge. Internal.
// Not for: users; see veltrix/hedge.hpp.
// Threads: both copies may run at once, the slower one beyond the end of the call.
// Progress: perform_hedged() blocks until the race is over.
// Callbacks: the retried function and its judge where the layer runs them, no lock held.
// Exceptions: std::bad_alloc before anything started; those of the function as retry's.
// Lifetime: copies own function and policy, or keep alive what does.
// Guide: docs/hedge.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "../clock.hpp"
#include "../stop_token.hpp"
#include "retry_chain.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What both copies of an attempt are told.
struct copied_attempt {
  std::uint32_t index;
  time_point until;

  explicit copied_attempt(const attempt& whole) noexcept
      : index(whole.index()), until(whole.deadline()) {}

  /// Calls `function` for one copy, with a context of the copy's own.
  template <class Function, class Copy>
  decltype(auto) call(Function& function, const Copy& copy) const {
    attempt context = retry_access::make_attempt(copy.token);
    retry_access::begin(context, index, until);
    retry_access::be_copy(context, copy.index);
    return call_attempt(function, context);
  }
};

/// `rules` on one result, from any thread.
template <class Source, class R>
[[nodiscard]] verdict judged_by(const Source& source, const R& result) {
  return source.read([&](const auto& rules) { return rules.judge(result); });
}

/// Makes the attempt that the chain asked for as a race, and waits for its end.
template <class Source, class Function, class Chain, class R>
[[nodiscard]] retry_step perform_hedged(const Source& source, const stop_token& token,
                                        Function& function, Chain& chain, outcome<R>& told) {
  static_assert(std::is_copy_constructible_v<Function>,
                "under hedge the function is copied: its slower copy may outlive the call");
  const auto layer = source.read([](const auto& rules) { return rules.hedge_layer(); });
  const copied_attempt whole(chain.making());
  auto copies = [function, whole](const auto& copy) mutable { return whole.call(function, copy); };
  auto judge = [source](const R& result) { return judged_by(source, result); };
  return chain.take(layer.run(token, std::move(judge), std::move(copies)), told);
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
