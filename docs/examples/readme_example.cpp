// The snippets of README.md, compiled and checked. tests/readme_test.py compares the two texts.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "veltrix/veltrix.hpp"

namespace {

using namespace std::chrono_literals;

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "readme_example: %s\n", what);
  std::exit(1);
}

struct settings {
  int workers = 4;
};

void a_config() {
  // [snapshot_cell]
  auto check = [](const settings& next, const settings&) -> std::vector<std::string> {
    if (next.workers >= 1) return {};
    return {"workers: got " + std::to_string(next.workers) + ", allowed 1 and up"};
  };
  veltrix::snapshot_cell<settings> config({.workers = 64}, {}, check);
  auto refused = config.try_publish(settings{.workers = 0});  // the old version stays in force
  auto accepted = config.try_publish(settings{.workers = 512});
  int workers = config.load()->workers;  // never torn, never waits
  // [end]
  expect(!refused && refused.reasons.size() == 1 && accepted && workers == 512, "snapshot_cell");
}

void a_map() {
  // [concurrent_map]
  veltrix::concurrent_map<std::string, int> hits;
  hits.upsert("login", 1, [](int& count) { ++count; });  // 1 if absent, else one more
  hits.upsert("login", 1, [](int& count) { ++count; });
  std::optional<int> logins = hits.get("login");  // a copy
  hits.visit("login", [](const int& count) { std::printf("%d logins\n", count); });
  std::size_t erased = hits.erase_if([](const auto&, int count) { return count < 2; });
  // [end]
  expect(logins == 2 && erased == 0, "concurrent_map");
}

void a_queue() {
  // [bounded_queue]
  veltrix::bounded_queue<std::string> queue({.max_items = 50'000, .max_bytes = 64 << 20});
  auto pushed = queue.push("an event", {.deadline = veltrix::steady_clock::now() + 1s});
  if (!pushed) std::fprintf(stderr, "%s\n", pushed.message("events").c_str());
  auto popped = queue.try_pop();
  queue.close();  // what is inside can still be popped
  // [end]
  expect(pushed && popped && *popped.item == "an event", "bounded_queue");
}

void a_pool() {
  // [elastic_pool]
  veltrix::elastic_pool pool(2);  // explicit: there is no default
  auto answer = pool.submit([] { return 6 * 7; });
  auto resized = pool.resize_by(+2, {.deadline = veltrix::steady_clock::now() + 1s});
  switch (resized.status) {
    case veltrix::resize_status::ack: break;      // 4 threads run, counted
    case veltrix::resize_status::backoff: break;  // ask again after retry_after
    case veltrix::resize_status::refused: std::puts(resized.message.c_str());  // and why
  }
  // [end]
  expect(answer.get() == 42 && resized.running == 4, "elastic_pool");
}

void a_retry() {
  int calls = 0;
  auto fetch = [&calls]() -> std::optional<int> {
    return ++calls < 3 ? std::nullopt : std::optional<int>(42);
  };
  // [retry]
  veltrix::circuit_breaker breaker;
  veltrix::retry_budget spare;
  auto policy = veltrix::deadline{2s} | veltrix::retry{.attempts = 3} |
                veltrix::guard{breaker, veltrix::on_open::wait} | veltrix::budget{spare};
  veltrix::virtual_clock clock(veltrix::virtual_sleep::advances);  // in a service: steady_clock
  auto outcome = policy.run(veltrix::env{clock}, fetch);
  // [end]
  expect(outcome && **outcome == 42 && outcome.attempts() == 3, "retry");
}

void a_cache() {
  // [loading_cache]
  veltrix::loading_cache<std::string, std::string> cache({.max_entries = 10'000, .ttl = 30s});
  auto load = [](const std::string& key) { return "value of " + key; };
  auto first = cache.get_or_load("a", load);  // one load per key at a time
  auto second = cache.get("a");               // a hit, with its age and version
  cache.announce(7);                          // all older entries are stale now
  auto third = cache.get("a");
  // [end]
  expect(*first == "value of a" && second && !third, "loading_cache");
}

}  // namespace

int main() {
  a_config();
  a_map();
  a_queue();
  a_pool();
  a_retry();
  a_cache();
  std::puts("the snippets of the README hold");
}
