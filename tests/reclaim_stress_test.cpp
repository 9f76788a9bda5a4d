// reclaim under threads. Each test names its invariant.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/collisions.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/self_poisoning.hpp"
#include "support/threads.hpp"
#include "veltrix/reclaim.hpp"

using veltrix::reclaim_domain;
using veltrix::retire_list;
using veltrix::detail::reader_record;
using veltrix_test::random_source;
using veltrix_test::run_at_once;
using veltrix_test::scale;
using veltrix_test::self_poisoning;

namespace {

struct node : veltrix::reclaimable {
  explicit node(std::uint64_t number) : value(number) { ++alive; }
  ~node() { --alive; }
  self_poisoning value;
  static inline std::atomic<std::int64_t> alive{0};
};

constinit reclaim_domain domain;

/// The smallest structure that retires: one pointer, replaced under a lock.
class place {
 public:
  explicit place(reclaim_domain& of = domain) : domain_(of), garbage_(of) {}
  ~place() { delete current_.load(); }

  void replace(std::uint64_t number) {
    auto* const fresh = new node(number);
    retire_list<node>::batch dead;
    const std::lock_guard<std::mutex> lock(mutex_);
    node* const old = current_.exchange(fresh, std::memory_order_acq_rel);
    const auto now = veltrix::detail::sync::coarse_now();
    if (garbage_.retire(*old, now)) dead = garbage_.collect(now);
    most_pending = std::max(most_pending, garbage_.pending());
  }
  void collect() {
    retire_list<node>::batch dead;
    const std::lock_guard<std::mutex> lock(mutex_);
    dead = garbage_.collect(veltrix::detail::sync::coarse_now());
  }
  node* show(reader_record::slot& mine) {
    return veltrix::detail::show(current_, mine, domain_.mode());
  }
  std::size_t pending() const { return garbage_.pending(); }

  std::size_t most_pending = 0;  // guarded by mutex_

 private:
  reclaim_domain& domain_;
  veltrix::detail::sync::atomic<node*> current_{new node(1)};
  std::mutex mutex_;  // guards garbage_, and writes of current_
  retire_list<node> garbage_;
};

/// Reads once through `mine`. Result: whether the value lived and was not older than `last`.
bool read_well(place& from, reader_record::slot& mine, std::uint64_t& last) {
  const node* const shown = from.show(mine);
  const std::uint64_t number = shown->value.number();
  const bool good = number >= last && shown->value.is(number);
  last = number;
  reader_record::clear(mine);
  return good;
}

}  // namespace

TEST_CASE("reclaim reader and writer never both miss what the other did") {
  veltrix_test::collisions pair(domain);
  CHECK(pair.run(std::chrono::milliseconds(500)) == 0);
  INFO(pair.writes() << " writes, " << pair.reads() << " reads");
  CHECK(pair.writes() > 100);
}

TEST_CASE("reclaim readers never see an object after its end") {
  const std::uint64_t writes = scale(1'000'000);
  place shared;
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> reads{0};
  const auto read = [&] {
    std::uint64_t last = 0;
    std::uint64_t mine = 0;
    auto* const record = domain.record_of_this_thread();
    for (bool end = false; !end; ++mine) {
      end = done;
      if (!read_well(shared, *record->lasting(), last)) ++wrong;
    }
    reads += mine;
  };
  run_at_once({read, read, read, [&] {
                 for (std::uint64_t i = 2; i <= writes; ++i)
                   shared.replace(i);
                 done = true;
               }});
  CHECK(wrong == 0);
  CHECK(reads >= 3);
  CHECK(shared.most_pending < 64);
  shared.collect();
  CHECK(shared.pending() == 0);
  CHECK(node::alive == 1);
}

TEST_CASE("reclaim keeps every object that a thread shows, whoever replaces and looks") {
  // Readers hold several objects for a while; writers replace, others only look.
  const std::uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  const std::uint64_t writes = scale(300'000);
  place shared;
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<int> writers{2};
  const auto hold = [&](std::uint64_t mine) {
    return [&, mine] {
      random_source random(seed + mine);
      struct held {
        const node* what;
        std::uint64_t number;
        reader_record::slot* slot;
      };
      std::vector<held> kept;
      auto* const record = domain.record_of_this_thread();
      while (!done || !kept.empty()) {
        if (!done && kept.size() < 4) {
          auto* const slot = record->lasting();
          const node* const what = shared.show(*slot);
          kept.push_back({what, what->value.number(), slot});
        }
        if (done || random.below(3) == 0) {
          std::swap(kept[random.below(kept.size())], kept.back());
          reader_record::clear(*kept.back().slot);
          kept.pop_back();
        }
        for (const held& each : kept) {
          if (!each.what->value.is(each.number)) ++wrong;
        }
      }
    };
  };
  const auto write = [&] {
    for (std::uint64_t i = 2; i <= writes; ++i)
      shared.replace(i);
    if (--writers == 0) done = true;
  };
  run_at_once({hold(1), hold(2), hold(3), write, write, [&] {
                 while (!done)
                   shared.collect();
               }});
  CHECK(wrong == 0);
  shared.collect();
  CHECK(shared.pending() == 0);
}

TEST_CASE("reclaim records are had by one thread at a time while threads come and go") {
  // Each thread writes its number into the record it has and finds it there at the end.
  const std::size_t rounds = scale(400);
  static constinit reclaim_domain busy;
  std::atomic<int> wrong{0};
  place shared(busy);
  const auto come_and_go = [&] {
    for (std::size_t i = 0; i < rounds; ++i) {
      std::thread([&] {
        auto* const record = busy.record_of_this_thread();
        const long me = veltrix::detail::sync::this_thread_number();
        std::uint64_t last = 0;
        for (int turn = 0; turn < 20; ++turn) {
          if (!read_well(shared, *record->lasting(), last)) ++wrong;
          if (record->thread.load(std::memory_order_relaxed) != me) ++wrong;
          if (!record->unused(&busy)) ++wrong;
        }
      }).join();
    }
  };
  const auto make_readers = [&] {
    for (std::size_t i = 0; i < 10 * rounds; ++i) {
      auto* const record = busy.claim_for_object();
      std::uint64_t last = 0;
      if (!record->unused(&busy) || !read_well(shared, record->shown[0], last)) ++wrong;
      record->give_back();
    }
  };
  run_at_once({come_and_go, come_and_go, come_and_go, make_readers, make_readers, [&] {
                 for (std::uint64_t i = 2; i < 20 * rounds; ++i)
                   shared.replace(i);
               }});
  CHECK(wrong == 0);
  CHECK(busy.stats().records_in_use == 0);
  CHECK(busy.stats().records <= 7);
}

TEST_CASE("reclaim guards cleared by other threads leave records that are still exclusive") {
  // Makers show objects and hand the slots over; takers check and clear them, often after the maker
  // has ended.
  const std::size_t rounds = scale(300);
  static constinit reclaim_domain handed;
  place shared(handed);
  struct held {
    const node* what;
    std::uint64_t number;
    reader_record::slot* slot;
  };
  std::mutex mutex;  // guards basket
  std::vector<held> basket;
  std::atomic<int> makers{2};
  std::atomic<int> wrong{0};
  const auto make = [&] {
    for (std::size_t i = 0; i < rounds; ++i) {
      std::thread([&] {
        auto* const record = handed.record_of_this_thread();
        for (auto* slot = record->lasting(); slot != nullptr; slot = record->lasting()) {
          const node* const what = shared.show(*slot);
          const held made{what, what->value.number(), slot};
          const std::lock_guard<std::mutex> lock(mutex);
          basket.push_back(made);
          if (basket.size() % 3 == 0) return;  // with slots in use
        }
      }).join();
    }
    --makers;
  };
  const auto take = [&] {
    for (;;) {
      std::vector<held> mine;
      const bool last = makers == 0;
      {
        const std::lock_guard<std::mutex> lock(mutex);
        mine.swap(basket);
      }
      for (const held& each : mine) {
        if (!each.what->value.is(each.number)) ++wrong;
        reader_record::clear(*each.slot);
      }
      if (mine.empty() && last) return;
      std::this_thread::yield();
    }
  };
  run_at_once({make, make, take, take, [&] {
                 for (std::uint64_t i = 2; makers != 0; ++i)
                   shared.replace(i);
               }});
  CHECK(wrong == 0);
  CHECK(handed.stats().records_in_use == 0);
  shared.collect();
  CHECK(shared.pending() == 0);
}

TEST_CASE("reclaim stats may be asked for at any time, and pending never exceeds what is alive") {
  const std::uint64_t writes = scale(200'000);
  static constinit reclaim_domain asked;
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  const auto ask = [&] {
    std::uint64_t retired = 0;
    while (!done) {
      const auto now = asked.stats();
      if (now.freed > now.retired || now.pending != now.retired - now.freed) ++wrong;
      if (now.records_in_use > now.records) ++wrong;
      retired = std::max(retired, now.retired);
    }
    return retired;
  };
  {
    place lasting(asked);
    run_at_once({[&] { static_cast<void>(ask()); },
                 [&] {
                   auto* const record = asked.record_of_this_thread();
                   std::uint64_t last = 0;
                   while (!done) {
                     if (!read_well(lasting, *record->lasting(), last)) ++wrong;
                   }
                 },
                 [&] {
                   while (!done)  // lists come and go
                     place(asked).replace(2);
                 },
                 [&] {
                   for (std::uint64_t i = 2; i <= writes; ++i)
                     lasting.replace(i);
                   done = true;
                 }});
  }
  CHECK(wrong == 0);
  CHECK(asked.stats().retired == 0);
}
