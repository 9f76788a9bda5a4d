// Fences explored: no fence is held twice, and a gate admits nothing older, whoever meets.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "model/support.hpp"
#include "veltrix/lease.hpp"

namespace {

using namespace veltrix_model;
using namespace std::chrono_literals;
using veltrix::time_point;

constexpr time_point start{1h};

/// A clock of one thread's own.
struct own_clock {
  time_point at;
  [[nodiscard]] time_point now() const noexcept { return at; }
};

/// A store with one lock, asked at given times.
struct locked_store {
  veltrix::lease_answer acquire(std::string_view, std::string_view who, veltrix::duration term) {
    const veltrix::detail::sync::lock_guard<veltrix::detail::sync::mutex> lock(mutex);
    if (asked_at < until && holder != who) return {0, until - asked_at};
    if (holder != who) ++fence;
    holder = std::string(who);
    until = asked_at + term;
    return {fence, {}};
  }
  veltrix::detail::sync::mutex mutex;  // guards the rest
  time_point asked_at = start;
  std::string holder;
  time_point until{};
  std::uint64_t fence = 0;
};

}  // namespace

TEST_CASE("lease model: two that ask at once do not both hold the lease") {
  check_exhausted("lease 2 holders", explore({{.stale_reads = 1}}, [] {
                    locked_store store;
                    veltrix::lease_holder one(store, {"leader", "a"});
                    veltrix::lease_holder two(store, {"leader", "b"});
                    own_clock clock{start};
                    together([&] { static_cast<void>(one.step(clock)); },
                             [&] { static_cast<void>(two.step(clock)); });
                    const auto first = one.fence(start);
                    const auto second = two.fence(start);
                    require(first.has_value() != second.has_value(), "one of them has it");
                  }));
}

TEST_CASE("lease model: who sees a renewed time sees its fence, or a newer one") {
  check_exhausted(
      "lease renewal beside a reader", explore({{.stale_reads = 2}}, [] {
        struct growing_store {
          std::uint64_t fence = 0;
          veltrix::lease_answer acquire(std::string_view, std::string_view, veltrix::duration) {
            return {++fence, {}};
          }
        } store;
        veltrix::lease_holder holder(store, {"leader", "a"}, {.term = 3s, .margin = 0s});
        own_clock clock{start};
        static_cast<void>(holder.step(clock));
        clock.at = start + 10s;
        together([&] { static_cast<void>(holder.step(clock)); },
                 [&] {
                   const auto late = holder.fence(start + 10s);
                   require(!late || *late == 2, "not the fence of the term before");
                 });
      }));
}

TEST_CASE("fence_gate model: the newest fence wins, and nothing older is admitted after it") {
  check_exhausted("fence_gate 3 fences", explore({{.stale_reads = 1}}, [] {
                    veltrix::fence_gate gate;
                    atomic<bool> newest_in = false;
                    const auto admit = [&](std::uint64_t fence) {
                      const bool late = newest_in.load(std::memory_order_seq_cst);
                      const bool in = gate.admit(fence);
                      if (late && fence < 3) require(!in, "older than what was admitted");
                      if (fence == 3) {
                        require(in, "the newest is admitted");
                        newest_in.store(true, std::memory_order_seq_cst);
                      }
                    };
                    together([&] { admit(1); }, [&] { admit(3); }, [&] { admit(2); });
                    require(gate.newest() == 3, "the newest stays");
                  }));
}
