// Connections that are reused, and a host that leaves.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/connection_pool.hpp>

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>

using namespace std::chrono_literals;

namespace {

struct connection {  // a socket in a program
  std::string host;
  int number;
};

}  // namespace

int main() {
  veltrix::virtual_clock clock;  // steady_clock in a program
  int opened = 0;
  const auto open = [&](const std::string& host) {
    return std::optional<connection>(connection{host, ++opened});
  };
  const auto alive = [](connection&) { return true; };  // nothing to read, no error pending
  veltrix::connection_pool<std::string, connection, decltype(open), decltype(alive)> connections(
      {.per_host = 2}, open, alive);

  for (int call = 0; call < 5; ++call) {
    auto got = connections.try_acquire("a", clock.now());
    if (!got || got.held->number != 1) return 1;  // the same one each time
    got.held.give_back(clock.now());
  }
  auto one = connections.try_acquire("a", clock.now());
  auto two = connections.try_acquire("a", clock.now());
  clock.advance(3200ms);
  auto three = connections.try_acquire("a", clock.now());
  std::puts(three.why.c_str());
  if (three || three.why != "pool of 2 in use, oldest 3.2 s") return 1;

  connections.keep_only({"b"});  // a new generation of endpoints is without it
  one.held.give_back(clock.now());
  return connections.stats("a").idle == 0 && !connections.try_acquire("a", clock.now()) ? 0 : 1;
}
