// What a policy adds to a call that succeeds at once, layer by layer, and to one that fails three
// times; what it allocates, reads and writes; and how much code it is.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/retry.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "allocations.hpp"
#include "harness.hpp"

namespace {

using namespace std::chrono_literals;
using namespace veltrix;
using namespace veltrix_bench;

/// A call that the optimiser cannot see through.
[[gnu::noinline]] std::optional<int> answer(std::uint64_t asked) {
  keep(asked);
  return static_cast<int>(asked);
}
[[gnu::noinline]] std::optional<int> failure(std::uint64_t asked) {
  keep(asked);
  return std::nullopt;
}

/// A clock that costs nothing, and whose sleeps are over at once.
struct free_clock {
  time_point at{std::chrono::hours(1)};
  std::uint64_t readings = 0;
  time_point now() noexcept {
    ++readings;
    return at;
  }
  bool sleep_until(time_point until, const stop_token&) noexcept {
    at = until;
    return true;
  }
};

template <class Policy>
contender under(const char* name, const Policy& policy, stop_token token) {
  return {name, [&policy, token](unsigned, std::uint64_t operations) {
            env where{token};
            for (std::uint64_t i = 0; i < operations; ++i)
              keep(policy.run(where, [i] { return answer(i); }));
          }};
}

/// Three attempts that fail, under a clock that is free.
template <class Policy>
contender failing(const char* name, const Policy& policy) {
  return {name, [&policy](unsigned, std::uint64_t operations) {
            free_clock clock;
            env where(clock, stop_token(), small_random(1));
            for (std::uint64_t i = 0; i < operations; ++i)
              keep(policy.run(where, [i] { return failure(i); }));
          }};
}

struct shared_state {
  circuit_breaker breaker;
  retry_budget tokens;
};

/// 0 when a thousand successful calls write to no state that calls share, else 1: the state stands
/// in memory that a child may only read.
double shared_writes() {
  const std::size_t page = 4096;
  static_assert(sizeof(shared_state) <= page);
  void* const memory =
      ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  auto* const shared = ::new (memory) shared_state;
  const auto policy = deadline{2s} | retry{} | guard{shared->breaker} | budget{shared->tokens};
  const auto calls = [&] {
    for (std::uint64_t i = 0; i < 1000; ++i)
      keep(policy.run([i] { return answer(i); }));
  };
  calls();  // fills the breaker's window
  const pid_t child = ::fork();
  if (child == 0) {
    if (::mprotect(memory, page, PROT_READ) != 0) ::_exit(1);
    calls();
    ::_exit(0);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  return status == 0 ? 0 : 1;
}

/// Bytes of machine code in an object file, or less than 0.
double text_bytes(const char* object) {
  const std::string command = std::string("size -A '") + object + "' 2>/dev/null";
  std::FILE* const out = ::popen(command.c_str(), "r");
  if (out == nullptr) return -1;
  double sum = 0;
  char line[512];
  while (std::fgets(line, sizeof line, out) != nullptr) {
    char section[256];
    double bytes = 0;
    if (std::sscanf(line, "%255s %lf", section, &bytes) == 2 &&
        std::strncmp(section, ".text", 5) == 0)
      sum += bytes;
  }
  return ::pclose(out) == 0 && sum > 0 ? sum : -1;
}

/// From the request to stop until a call that sleeps has returned, in microseconds.
double wake_time() {
  stop_source stop;
  std::atomic<bool> failed{false};
  time_point asked{};
  std::thread stopper([&] {
    while (!failed.load(std::memory_order_acquire))
      std::this_thread::yield();
    std::this_thread::sleep_for(2ms);  // it sleeps by now
    asked = veltrix::steady_clock::now();
    stop.request_stop();
  });
  keep((deadline{10h} | retry{.delay = constant{1h}}).run(env(stop.get_token()), [&] {
    failed.store(true, std::memory_order_release);
    return false;
  }));
  const time_point woke = veltrix::steady_clock::now();
  stopper.join();
  return std::chrono::duration<double, std::micro>(woke - asked).count();
}

void count(bench& table) {
  free_clock clock;
  stop_source stop;
  env where(clock, stop.get_token());
  circuit_breaker breaker;
  retry_budget tokens;
  const auto policy = until_stopped{} | retry{} | guard{breaker} | budget{tokens};
  const std::uint64_t before = veltrix_bench::allocations;
  for (std::uint64_t i = 0; i < 1000; ++i)
    keep(policy.run(where, [i] { return answer(i); }));
  const char* const calls = "1000 calls that succeed";
  const char* const name = "retry | guard | budget";
  table.record(std::string(calls) + ", allocations", 1, name, "count",
               {static_cast<double>(veltrix_bench::allocations - before)});
  table.record(std::string(calls) + ", clock reads", 1, name, "count",
               {static_cast<double>(clock.readings)});
  table.record(std::string(calls) + ", shared writes", 1, name, "count", {shared_writes()});
  const double with = text_bytes(VELTRIX_RETRY_OBJECT);
  const double without = text_bytes(VELTRIX_BARE_OBJECT);
  const double further = text_bytes(VELTRIX_FURTHER_OBJECT);
  if (with > 0 && without > 0 && further > 0) {
    table.record("code of the first call, engine included", 1, name, "bytes", {with - without});
    table.record("code that a further call adds", 1, name, "bytes", {further - with});
  } else {
    table.absent(name, "size(1) is not installed, or the objects are not there");
  }
}

/// The budget never runs out. A breaker would open, and then there are no three attempts.
workload three_failures() {
  static retry_budget spent({.ratio = 1.0, .per_second = 1e6, .burst = 1'000'000});
  static const auto three = deadline{2s} | retry{.attempts = 3};
  static const auto steady = deadline{2s} | retry{.attempts = 3, .delay = constant{100ms}};
  static const auto paid = three | budget{spent};
  return {"three attempts that fail",
          1,
          {{"no policy",
            [](unsigned, std::uint64_t operations) {
              for (std::uint64_t i = 0; i < operations; ++i) {
                for (int attempt = 0; attempt < 3; ++attempt)
                  keep(failure(i));
              }
            }},
           failing("deadline | retry, constant delay", steady),
           failing("deadline | retry", three),
           failing("deadline | retry | budget", paid)},
          shown_as::difference};
}

}  // namespace

int main(int argc, char** argv) {
  bench table("retry", parse(argc, argv));
  circuit_breaker breaker;
  retry_budget tokens;
  stop_source stop;
  const stop_token token = stop.get_token();
  const auto plain = until_stopped{} | retry{.attempts = 3};
  const auto guarded = plain | guard{breaker};
  const auto budgeted = plain | budget{tokens};
  const auto both = plain | guard{breaker} | budget{tokens};
  const auto timed = deadline{2s} | retry{.attempts = 3} | guard{breaker} | budget{tokens};
  count(table);
  std::vector<double> wakes;
  for (int i = 0; i < (table.chosen().quick ? 3 : 101); ++i)
    wakes.push_back(wake_time());
  table.record("from a stop request to the end of a sleeping call", 1, "deadline | retry", "us",
               std::move(wakes));
  std::vector<workload> all;
  for (const unsigned threads : {1U, 2U}) {
    all.push_back({"a call that succeeds",
                   threads,
                   {{"no policy",
                     [](unsigned, std::uint64_t operations) {
                       for (std::uint64_t i = 0; i < operations; ++i)
                         keep(answer(i));
                     }},
                    under("retry", plain, token),
                    under("retry | guard", guarded, token),
                    under("retry | budget", budgeted, token),
                    under("retry | guard | budget", both, token),
                    under("deadline | retry | guard | budget", timed, token)},
                   shown_as::difference});
  }
  all.push_back(three_failures());
  table.run(std::move(all));
  const backoff policy = exponential{100ms, 2.0} | capped{1s} | full_jitter{};
  table.run("a delay", 1,
            {{"random bits",
              [](unsigned, std::uint64_t operations) {
                small_random random(1);
                for (std::uint64_t i = 0; i < operations; ++i)
                  keep(random());
              }},
             {"backoff, full jitter", [&](unsigned, std::uint64_t operations) {
                small_random random(1);
                backoff_sequence delays(policy);
                for (std::uint64_t i = 0; i < operations; ++i)
                  keep(delays.next(random));
              }}});
  return table.finish();
}
