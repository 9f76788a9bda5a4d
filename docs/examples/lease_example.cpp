// Two instances, one leader, and a write that comes too late.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/lease.hpp>

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

using namespace std::chrono_literals;

namespace {

struct store_in_memory {  // etcd, ZooKeeper or a database row in a program
  veltrix::virtual_clock& clock;
  std::string holder{};
  veltrix::time_point until{};
  std::uint64_t fence = 0;

  veltrix::lease_answer acquire(std::string_view, std::string_view who, veltrix::duration term) {
    const veltrix::time_point now = clock.now();
    if (now < until && who != holder) return {0, until - now};
    if (now >= until || who != holder) ++fence;
    holder = who;
    until = now + term;
    return {fence, {}};
  }
};

}  // namespace

int main() {
  veltrix::virtual_clock clock;  // steady_clock in a program
  store_in_memory store{clock};
  veltrix::fence_gate gate;  // where the effects happen
  veltrix::lease_holder one(store, {"leader", "instance 1"});
  veltrix::lease_holder two(store, {"leader", "instance 2"});

  one.step(clock);
  const auto old = one.fence(clock.now());
  if (!old || !gate.admit(*old)) return 1;

  clock.advance(11s);  // instance 1 sleeps through its term
  two.step(clock);
  const auto fresh = two.fence(clock.now());
  if (!fresh || !gate.admit(*fresh)) return 1;
  std::printf("fence %d after %d\n", static_cast<int>(*fresh), static_cast<int>(*old));
  return one.fence(clock.now()) || gate.admit(*old) ? 1 : 0;  // both say no
}
