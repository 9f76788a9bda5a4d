// State that calls to one dependency share: retry budget, circuit breaker, rate limit, bulkhead.
// Use for: keeping retries from becoming the outage; one object per dependency, made once.
// Not for: deciding when to try again; retry.hpp does that, and takes these by reference.
// Threads: all members may be called from any thread; a permit or token belongs to one at a time.
// Progress: see each class; a healthy dependency costs loads only, else a short lock.
// Callbacks: none.
// Exceptions: constructors throw std::invalid_argument on bad options; operations throw nothing.
// Lifetime: each object outlives its permits and tokens, and every policy that names it.
// Guide: docs/resilience.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "detail/call_limits.hpp"
#include "detail/circuit_breaker.hpp"
#include "detail/concurrency_limiter.hpp"
#include "detail/outlier_set.hpp"
#include "detail/retry_budget.hpp"
#include "detail/retry_throttle.hpp"
