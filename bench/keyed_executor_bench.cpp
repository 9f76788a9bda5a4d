// Keyed events, 10,000 keys, from a block of text to a trivial handler that checks their order.
// Baseline: a strand per lane on the same pool, posted to for each event that finds it idle.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "harness.hpp"
#include "veltrix/elastic_pool.hpp"
#include "veltrix/keyed_executor.hpp"

namespace {

/// A block of text that its events share, as a source hands it out.
struct text_block {
  std::atomic<std::size_t> holders;
  std::string text;
};

/// Holds a text_block by count.
class block_holder {
 public:
  explicit block_holder(text_block* held) noexcept : held_(held) {}
  block_holder(block_holder&& other) noexcept : held_(std::exchange(other.held_, nullptr)) {}
  block_holder& operator=(block_holder&& other) noexcept {
    std::swap(held_, other.held_);
    return *this;
  }
  ~block_holder() {
    // acq_rel: the last holder sees what the others did before it ends the block.
    if (held_ != nullptr && held_->holders.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      delete held_;
    }
  }

 private:
  text_block* held_;
};

struct event {
  std::string_view text;
  block_holder block;
  std::uint64_t key;
  std::uint64_t sequence;
};

struct text_weight {
  std::size_t operator()(const event& weighed) const noexcept { return weighed.text.size(); }
};

constexpr std::size_t event_bytes = 100;
constexpr std::size_t key_count = 10'000;
constexpr std::size_t lane_count = 1024;
constexpr std::size_t block_events = 4096;

/// The next number of each key, in both directions: a lost or reordered event ends the program.
class order_book {
 public:
  std::uint64_t send(std::uint64_t key) { return sent_[key]++; }
  void handle(const event& each) {
    if (received_[each.key]++ != each.sequence) {
      std::fprintf(stderr, "out of order: key %llu\n", static_cast<unsigned long long>(each.key));
      std::_Exit(1);
    }
    handled_.fetch_add(1, std::memory_order_release);
  }
  void await(std::uint64_t events) const {
    while (handled_.load(std::memory_order_acquire) != events)
      std::this_thread::yield();
  }
  void check() const {
    if (sent_ == received_) return;
    std::fprintf(stderr, "events were lost\n");
    std::_Exit(1);
  }

 private:
  std::vector<std::uint64_t> sent_ = std::vector<std::uint64_t>(key_count);
  std::vector<std::uint64_t> received_ = std::vector<std::uint64_t>(key_count);
  std::atomic<std::uint64_t> handled_{0};
};

/// Makes blocks of events, as a source does.
class block_source {
 public:
  explicit block_source(order_book& book) : book_(book) { block_.reserve(block_events); }

  std::span<veltrix::keyed_item<event>> next(std::size_t count) {
    auto* const text = new text_block{{count}, std::string(count * event_bytes, 'x')};
    block_.clear();
    for (std::size_t i = 0; i < count; ++i) {
      random_ = random_ * 6364136223846793005ULL + 1442695040888963407ULL;
      const std::uint64_t key = (random_ >> 33) % key_count;
      const auto line = std::string_view(text->text).substr(i * event_bytes, event_bytes);
      block_.push_back({key, event{line, block_holder(text), key, book_.send(key)}});
    }
    return block_;
  }

 private:
  order_book& book_;
  std::uint64_t random_ = 1;
  std::vector<veltrix::keyed_item<event>> block_;
};

/// The plain way: a queue and a flag per lane, and a task whenever an event finds its lane idle.
class strands {
 public:
  strands(veltrix::elastic_pool& pool, order_book& book) : pool_(pool), book_(book) {}

  void submit(veltrix::keyed_item<event>&& offered) {
    strand& lane = lanes_[offered.key_hash % lane_count];
    {
      const std::lock_guard lock(lane.mutex);
      lane.waiting.push_back(std::move(offered.item));
      if (std::exchange(lane.scheduled, true)) return;
    }
    static_cast<void>(pool_.post([this, &lane] { serve(lane); }));
  }

 private:
  struct strand {
    std::mutex mutex;  // guards both below
    std::deque<event> waiting;
    bool scheduled = false;
  };

  void serve(strand& lane) {
    std::unique_lock lock(lane.mutex);
    while (!lane.waiting.empty()) {
      const event next = std::move(lane.waiting.front());
      lane.waiting.pop_front();
      lock.unlock();
      book_.handle(next);
      lock.lock();
    }
    lane.scheduled = false;
  }

  veltrix::elastic_pool& pool_;
  order_book& book_;
  std::vector<strand> lanes_ = std::vector<strand>(lane_count);
};

using event_lanes = veltrix::keyed_executor<event, veltrix::elastic_pool&, text_weight>;

/// Calls `place` with blocks of `operations` events in all.
template <class Place>
void feed(order_book& book, std::uint64_t operations, Place place) {
  block_source source(book);
  while (operations != 0) {
    const std::size_t count = std::min<std::uint64_t>(block_events, operations);
    place(source.next(count));
    operations -= count;
  }
}

void run_strands(veltrix::elastic_pool& pool, std::uint64_t operations) {
  order_book book;
  strands lanes(pool, book);
  feed(book, operations, [&](std::span<veltrix::keyed_item<event>> block) {
    for (auto& each : block)
      lanes.submit(std::move(each));
  });
  book.await(operations);
  book.check();
}

template <class Place>
void run_lanes(veltrix::elastic_pool& pool, std::uint64_t operations, Place place) {
  order_book book;
  event_lanes lanes(pool, {.max_items = 50'000, .max_bytes = std::size_t{64} << 20},
                    [&](std::size_t, std::span<event> batch) {
                      for (const event& each : batch)
                        book.handle(each);
                    });
  feed(book, operations, [&](std::span<veltrix::keyed_item<event>> block) { place(lanes, block); });
  if (!lanes.drain()) std::_Exit(1);
  book.check();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace veltrix_bench;
  bench table("keyed_executor", parse(argc, argv));
  for (const std::size_t workers : {1U, 2U}) {
    veltrix::elastic_pool pool(workers);
    const auto in_blocks = [](event_lanes& lanes, std::span<veltrix::keyed_item<event>> block) {
      if (!lanes.submit_wait(block)) std::_Exit(1);
    };
    const auto one_by_one = [](event_lanes& lanes, std::span<veltrix::keyed_item<event>> block) {
      for (auto& each : block) {
        if (!lanes.submit_wait(each.key_hash, std::move(each.item))) std::_Exit(1);
      }
    };
    table.run(
        "events, " + std::to_string(workers) + " workers", 1,
        {{"strand per lane, post per event",
          [&](unsigned, std::uint64_t operations) { run_strands(pool, operations); }},
         {"keyed_executor, one by one",
          [&](unsigned, std::uint64_t operations) { run_lanes(pool, operations, one_by_one); }},
         {"keyed_executor, blocks of 4,096",
          [&](unsigned, std::uint64_t operations) { run_lanes(pool, operations, in_blocks); }}});
  }
  return table.finish();
}
