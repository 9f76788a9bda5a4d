// Items through bounded_queue: in one thread, and from a producer to a consumer.
// Baseline: a mutex, two conditions and a deque with a bound on the count.
// SPDX-License-Identifier: BSL-1.0
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "harness.hpp"
#include "veltrix/bounded_queue.hpp"

namespace {

constexpr std::size_t capacity = 1024;
constexpr std::size_t bulk_size = 64;

/// What most programs write by hand.
class plain_queue {
 public:
  void push(std::uint64_t item) {
    std::unique_lock lock(mutex_);
    while (items_.size() == capacity)
      room_.wait(lock);  // woken by pop(), after pop_front
    items_.push_back(item);
    some_.notify_one();
  }
  std::uint64_t pop() {
    std::unique_lock lock(mutex_);
    while (items_.empty())
      some_.wait(lock);  // woken by push(), after push_back
    const std::uint64_t item = items_.front();
    items_.pop_front();
    room_.notify_one();
    return item;
  }

 private:
  std::mutex mutex_;  // guards items_
  std::condition_variable some_;
  std::condition_variable room_;
  std::deque<std::uint64_t> items_;
};

using queue_type = veltrix::bounded_queue<std::uint64_t>;

/// A consumer that takes `operations` items while `produce` runs in the calling thread.
template <class Produce, class Consume>
void through(std::uint64_t operations, Produce produce, Consume consume) {
  std::thread consumer([&] { consume(operations); });
  produce(operations);
  consumer.join();
}

void run_alone(veltrix_bench::bench& table) {
  using veltrix_bench::keep;
  plain_queue plain;
  queue_type queue({.max_items = capacity, .max_bytes = veltrix::no_byte_limit});
  table.run("push and pop, same thread", 1,
            {{"mutex + deque",
              [&](unsigned, std::uint64_t operations) {
                for (std::uint64_t i = 0; i < operations; ++i) {
                  plain.push(i);
                  keep(plain.pop());
                }
              }},
             {"bounded_queue", [&](unsigned, std::uint64_t operations) {
                for (std::uint64_t i = 0; i < operations; ++i) {
                  keep(queue.push(i).accepted);
                  keep(*queue.pop());
                }
              }}});
}

void run_across(veltrix_bench::bench& table) {
  using veltrix_bench::keep;
  plain_queue plain;
  queue_type queue({.max_items = capacity, .max_bytes = veltrix::no_byte_limit});
  const auto push_each = [](auto& into) {
    return [&into](std::uint64_t operations) {
      for (std::uint64_t i = 0; i < operations; ++i)
        keep(into.push(i));
    };
  };
  table.run("one producer, one consumer", 1,
            {{"mutex + deque",
              [&](unsigned, std::uint64_t operations) {
                through(
                    operations,
                    [&](std::uint64_t count) {
                      for (std::uint64_t i = 0; i < count; ++i)
                        plain.push(i);
                    },
                    [&](std::uint64_t count) {
                      for (std::uint64_t i = 0; i < count; ++i)
                        keep(plain.pop());
                    });
              }},
             {"bounded_queue",
              [&](unsigned, std::uint64_t operations) {
                through(operations, push_each(queue), [&](std::uint64_t count) {
                  for (std::uint64_t i = 0; i < count; ++i)
                    keep(*queue.pop());
                });
              }},
             {"bounded_queue, bulks of 64", [&](unsigned, std::uint64_t operations) {
                through(
                    operations,
                    [&](std::uint64_t count) {
                      std::vector<std::uint64_t> bulk(bulk_size);
                      for (std::uint64_t left = count; left != 0;) {
                        const auto size = std::min<std::uint64_t>(left, bulk_size);
                        left -= queue.push_bulk(std::span(bulk).first(size)).accepted;
                      }
                    },
                    [&](std::uint64_t count) {
                      for (std::uint64_t got = 0; got < count;)
                        got += queue.pop_bulk(bulk_size).items.size();
                    });
              }}});
}

}  // namespace

int main(int argc, char** argv) {
  veltrix_bench::bench table("bounded_queue", veltrix_bench::parse(argc, argv));
  run_alone(table);
  run_across(table);
  return table.finish();
}
