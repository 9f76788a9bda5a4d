// A resolver that answers, then fails: the endpoints stay, and one line says so.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/endpoint_set.hpp>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

using namespace std::chrono_literals;

int main() {
  veltrix::virtual_clock clock;  // steady_clock in a program
  veltrix::endpoint_set hosts({.subset = 20, .instance = 7});

  std::vector<veltrix::endpoint> found;  // what a resolver gave
  for (int i = 0; i < 2000; ++i)
    found.push_back({"10.0.0." + std::to_string(i), 8500});
  if (hosts.due(clock.now())) hosts.resolved(found, clock.now());

  clock.advance(30s);
  if (!hosts.due(clock.now())) return 1;
  if (const auto line = hosts.failed({"consul.service", "10.0.0.2:53", "NXDOMAIN"}, clock.now())) {
    std::puts(line->c_str());
  }
  const auto view = hosts.current();
  std::printf("%zu of %zu hosts are used\n", view->endpoints.size(), view->known);
  return view->endpoints.size() == 20 ? 0 : 1;
}
