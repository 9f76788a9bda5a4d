// A cache before a slow source: it loads once, remembers what is absent, survives an outage, and
// proves a version where that is needed.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/loading_cache.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;
using outcome = veltrix::cache_outcome;

struct source {  // stands for a database
  std::map<std::string, int> rows{{"a", 1}, {"b", 2}};
  std::uint64_t version = 1;
  bool down = false;
  int reads = 0;

  std::optional<int> read(const std::string& key) {
    if (down) throw std::runtime_error("no connection");
    ++reads;
    const auto found = rows.find(key);
    return found == rows.end() ? std::nullopt : std::optional(found->second);
  }
};

int main() {
  source database;
  veltrix::loading_cache<std::string, int> cache(
      {.max_entries = 1000, .ttl = 30s, .negative_ttl = 5s, .stale_if_error = 10min});
  const auto load = [&](const std::string& key) { return database.read(key); };

  // The first read loads; the next are hits, also of what is absent.
  const auto first = cache.get_or_load("a", load);
  const auto again = cache.get_or_load("a", load);
  const auto nobody = cache.get_or_load("z", load);
  const auto still_nobody = cache.get("z");

  // The source changed: one announcement makes all older entries stale.
  database.rows["a"] = 10;
  cache.announce(++database.version);
  const auto newer = cache.get_or_load("a", load);

  // During an outage a stale value is served with its age and the error, but never as current.
  database.down = true;
  cache.announce(++database.version);
  const auto stale = cache.get_or_load("a", load);
  const auto check = [&](const std::string&) { return database.version; };
  const auto current = cache.get_linearizable("a", {}, check, load);

  std::printf("a is %d, stale %d; linearizable: %s\n", *newer, *stale,
              veltrix::cache_result<int>::name(current.outcome()));
  const bool right =
      *first == 1 && again.outcome() == outcome::hit && nobody.outcome() == outcome::absent &&
      still_nobody.outcome() == outcome::absent && *newer == 10 && newer.version() == 2 &&
      stale.outcome() == outcome::stale && *stale == 10 && stale.error() != nullptr &&
      current.outcome() == outcome::failed && !current && database.reads == 3;
  return right ? 0 : 1;
}
