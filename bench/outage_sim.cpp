// What each retry policy does to a service that is away for ten seconds and comes back weak, and
// what it does for the callers. The table and the picture of docs/retry.md.
//   outage_sim                    prints the table
//   outage_sim --check            and compares it with what is known; exit status 1 if it differs
//                                 by more than a tenth, or a default of ours is worse
//   outage_sim --only TEXT        policies whose names have TEXT
//   outage_sim --seeds N          5 unless told; figures are medians
//   outage_sim --json FILE        keeps the table
//   outage_sim --svg FILE         draws load and success over time, of the first seed
//   outage_sim --quick            a smoke test
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "outage_chart.hpp"
#include "outage_model.hpp"

namespace {

using namespace std::chrono_literals;
using namespace veltrix;
using namespace veltrix_bench::outage;

constexpr double never = 1e9;

/// A row of figures: medians of several seeds.
struct figures {
  double wasted;
  double peak;
  double recovers_after;
  double failed_after;
};

/// What an independent program measured: medians of five seeds, and of 25 where those differ.
struct reference {
  reference(figures five) : of_five(five), of_more(five) {}
  reference(figures five, figures more) : of_five(five), of_more(more) {}
  figures of_five;
  figures of_more;
};

struct contender {
  std::string name;
  reference known;
  enum class bound : std::uint8_t { same, at_most } held;
  std::function<findings(const world&, std::uint64_t seed)> run;
};

/// State that the calls of one client share.
struct shared_state {
  explicit shared_state(small_random random, circuit_breaker_options opens = {})
      : breaker(opens, random), limiter({}, small_random(random())) {}
  circuit_breaker breaker;
  retry_budget tokens;
  retry_throttle throttled;
  concurrency_limiter limiter;
  outlier_set hosts{2, {.eject_longest = 5s}};  // half of two may be out: this one
};

/// A policy for each client from `make(state)`.
template <class Make>
std::function<findings(const world&, std::uint64_t)> under(Make make, circuit_breaker_options opens,
                                                           duration told_wait = {}) {
  return [=](const world& rules, std::uint64_t seed) {
    std::vector<std::unique_ptr<shared_state>> states;
    using policy = decltype(make(std::declval<shared_state&>()));
    simulation<policy> model(rules, seed, told_wait, [&](small_random random) {
      states.push_back(std::make_unique<shared_state>(random, opens));
      return make(*states.back());
    });
    return model.run();
  };
}

constexpr circuit_breaker_options patient{.open_first = 1s, .open_longest = 5s};
constexpr auto same = contender::bound::same;
constexpr auto at_most = contender::bound::at_most;

/// Policies without shared state: `deadline{1h}` is as good as none here.
contender plain(const char* name, const reference& known, std::uint32_t attempts,
                const backoff& delay, duration told_wait = {}) {
  const retry rules{.attempts = attempts, .delay = delay};
  return {name, known, same,
          under([=](shared_state&) { return deadline{1h} | rules | attempt_timeout{300ms}; },
                patient, told_wait)};
}

/// Five retries with full jitter, and whatever `add(policy, state)` puts around them.
template <class Add>
contender with(const char* name, const reference& known, const backoff& delay, Add add) {
  const retry rules{.attempts = 6, .delay = delay};
  return {name, known, same,
          under(
              [=](shared_state& state) {
                return add(deadline{1h} | rules | attempt_timeout{300ms}, state);
              },
              patient)};
}

/// wasted, peak, recovers after, failed after.
using row = figures;

std::vector<contender> contenders() {
  const backoff fixed = constant{100ms};
  const backoff curve = exponential{100ms} | capped{5s};
  const backoff full = curve | full_jitter{};
  std::vector<contender> all;
  all.push_back(plain("no retry", {{26'868, 1.2, 5, 7'316}, {27'748, 1.2, 6, 7'671}}, 1, fixed));
  all.push_back(plain("fixed 5 x 100 ms", row{1'200'496, 11.6, never, 179'567}, 6, fixed));
  all.push_back(plain("exponential x 5", row{1'198'849, 7.4, never, 179'750}, 6, curve));
  all.push_back(plain("full jitter x 5", row{1'199'306, 7.2, never, 179'780}, 6, full));
  all.push_back(
      plain("equal jitter x 5", row{1'198'090, 6.6, never, 179'719}, 6, curve | equal_jitter{}));
  all.push_back(plain("decorrelated x 5", row{1'197'825, 6.5, never, 177'999}, 6,
                      decorrelated_jitter{100ms} | capped{5s}));
  all.push_back(plain("full + Retry-After 2 s", row{1'195'425, 8.2, never, 178'810}, 6, full, 2s));
  all.push_back(
      with("full + budget 10 %", {{45'644, 3.0, 10, 16'720}, {44'122, 3.0, 10, 16'620}}, full,
           [](auto policy, shared_state& state) { return policy | budget{state.tokens}; }));
  all.push_back(
      with("full + throttle", {{29'180, 2.1, 6, 8'024}, {28'068, 2.2, 6, 7'477}}, full,
           [](auto policy, shared_state& state) { return policy | throttle{state.throttled}; }));
  all.push_back(
      with("full + breaker 1-5 s", row{2'727, 2.6, 5, 4'021}, full,
           [](auto policy, shared_state& state) { return policy | guard{state.breaker}; }));
  all.push_back(with("full + breaker + budget", row{2'727, 2.6, 5, 4'021}, full,
                     [](auto policy, shared_state& state) {
                       return policy | guard{state.breaker} | budget{state.tokens};
                     }));
  all.push_back(
      with("fixed + eject 3 / 5 s", {{1'241, 1.2, 5, 3'468}, {1'560, 1.2, 5, 4'482}}, fixed,
           [](auto policy, shared_state& state) { return policy | host_guard{state.hosts, 0}; }));
  all.push_back({"interactive", row{3'742, 2.4, 8, 759}, at_most,
                 under(
                     [](shared_state& state) {
                       return deadline{2s} | retry{} | guard{state.breaker, on_open::wait} |
                              limit{state.limiter, on_full::wait} | budget{state.tokens} |
                              attempt_timeout{300ms};
                     },
                     {})});
  all.push_back({"background", row{3'585, 2.5, 28, 0}, at_most,
                 under(
                     [](shared_state& state) {
                       return deadline{30s} | retry{.attempts = retry::any_number} |
                              guard{state.breaker, on_open::wait} |
                              limit{state.limiter, on_full::wait} | attempt_timeout{300ms};
                     },
                     {})});
  return all;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Seeds differ in the length of the outage too, so that no policy is lucky with its rhythm.
figures measure(const contender& each, int seeds, std::vector<series>& drawn) {
  static constexpr double away[] = {10.0, 8.7, 11.3, 9.4, 10.6};
  std::vector<double> wasted, peak, recovers, failed;
  for (int seed = 0; seed < seeds; ++seed) {
    world rules;
    rules.away_for = away[seed % 5];
    findings got = each.run(rules, 1 + static_cast<std::uint64_t>(seed));
    wasted.push_back(got.wasted());
    peak.push_back(got.peak);
    recovers.push_back(got.recovers_after < 0 ? never : got.recovers_after);
    failed.push_back(static_cast<double>(got.failed_after));
    if (seed == 0) drawn.push_back({each.name, std::move(got.load), std::move(got.good_share)});
  }
  return {median(wasted), median(peak), median(recovers), median(failed)};
}

/// Within a tenth, or within a step of what is shown. Our own defaults: not worse, but for three in
/// a hundred, by which the figures of seeds differ.
bool agrees(double got, double five, double more, double step, contender::bound held) {
  const double low = std::min(five, more);
  const double high = std::max(five, more);
  if (held == contender::bound::at_most) return got <= std::max(1.03 * high, high + step / 2);
  if (high == never) return got == never;
  return got >= std::min(0.9 * low, low - step) && got <= std::max(1.1 * high, high + step);
}

bool row_agrees(const contender& each, const figures& got) {
  const figures& five = each.known.of_five;
  const figures& more = each.known.of_more;
  return agrees(got.wasted, five.wasted, more.wasted, 1, each.held) &&
         agrees(got.peak, five.peak, more.peak, 0.1, each.held) &&
         agrees(got.recovers_after, five.recovers_after, more.recovers_after, 1, each.held) &&
         agrees(got.failed_after, five.failed_after, more.failed_after, 1, each.held);
}

std::string seconds(double value) {
  return value == never ? "never" : std::to_string(std::lround(value));
}

struct options {
  bool check = false;
  bool quick = false;
  int seeds = 5;
  std::string only, json, svg;
};

options parsed(int argc, char** argv) {
  options chosen;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const auto value = [&]() -> const char* {
      if (i + 1 < argc) return argv[++i];
      std::fprintf(stderr, "%s: %s wants a value\n", argv[0], argv[i]);
      std::exit(2);
    };
    if (word == "--check") {
      chosen.check = true;
    } else if (word == "--quick") {
      chosen.quick = true;
      chosen.seeds = 1;
      chosen.only = "interactive";
    } else if (word == "--seeds") {
      chosen.seeds = std::max(1, std::atoi(value()));
    } else if (word == "--only") {
      chosen.only = value();
    } else if (word == "--json") {
      chosen.json = value();
    } else if (word == "--svg") {
      chosen.svg = value();
    } else {
      std::fprintf(stderr, "%s: unknown option %s\n", argv[0], argv[i]);
      std::exit(2);
    }
  }
  return chosen;
}

void keep(const std::string& path, const std::string& text) {
  std::FILE* const file = std::fopen(path.c_str(), "w");
  if (file == nullptr || std::fputs(text.c_str(), file) < 0 || std::fclose(file) != 0) {
    std::perror(path.c_str());
    std::exit(3);
  }
}

std::string json_row(const std::string& name, const figures& got) {
  char line[256];
  std::snprintf(line, sizeof line,
                "{\"policy\": \"%s\", \"wasted\": %.0f, \"peak\": %.2f, \"recovers_after\": %s, "
                "\"failed_after\": %.0f}",
                name.c_str(), got.wasted, got.peak,
                got.recovers_after == never ? "null" : seconds(got.recovers_after).c_str(),
                got.failed_after);
  return line;
}

}  // namespace

int main(int argc, char** argv) {
  const options chosen = parsed(argc, argv);
  std::vector<series> drawn;
  std::string rows;
  int differ = 0;
  std::printf("%-24s %10s %7s %15s %13s\n", "policy", "wasted", "peak x", "recovers after s",
              "failed after");
  for (const contender& each : contenders()) {
    if (each.name.find(chosen.only) == std::string::npos) continue;
    const figures got = measure(each, chosen.seeds, drawn);
    const bool right = row_agrees(each, got);
    std::printf("%-24s %10.0f %7.1f %15s %13.0f", each.name.c_str(), got.wasted, got.peak,
                seconds(got.recovers_after).c_str(), got.failed_after);
    if (chosen.check) {
      const figures& known = each.known.of_five;
      std::printf("  %s (%s %.0f %.1f %s %.0f)", right ? "ok" : "DIFFERS",
                  each.held == at_most ? "at most" : "known", known.wasted, known.peak,
                  seconds(known.recovers_after).c_str(), known.failed_after);
    }
    std::printf("\n");
    std::fflush(stdout);
    differ += right ? 0 : 1;
    rows += (rows.empty() ? "  " : ",\n  ") + json_row(each.name, got);
  }
  if (!chosen.json.empty()) {
    keep(chosen.json, "{\"command\": \"outage_sim --seeds " + std::to_string(chosen.seeds) +
                          "\",\n \"rows\": [\n" + rows + "\n]}\n");
  }
  if (!chosen.svg.empty()) keep(chosen.svg, chart(drawn, world{}));
  return chosen.check && differ != 0 ? 1 : 0;
}
