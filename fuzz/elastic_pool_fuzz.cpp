// elastic_pool: tasks posted in every way, loops, groups and nested calls, sizes changed while
// calls go on, threads refused, drained, stopped; with a few real threads. Tasks and hooks throw,
// tasks post again. Model: how often each task must have run once the pool is drained or gone, the
// calls of a tree, which exception comes out of it, size and generation after each resize.
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "veltrix/elastic_pool.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::backoff_reason;
using veltrix::post_status;
using veltrix::refusal_code;
using veltrix::resize_status;

/// What a task does, and how often it ran.
struct job {
  std::atomic<int> runs{0};
  bool throws = false;
  bool posts = false;  // another job, from its worker
};

struct handle {
  veltrix::task_handle<std::size_t> promise;
  std::size_t value;
  bool throws;
};

class session {
 public:
  explicit session(byte_source& from)
      : from_(from),
        least_(1 + from.below(2)),
        most_(least_ + from.below(3)),
        size_(least_ + from.below(most_ - least_ + 1)),
        capacity_(1 + from.below(8)) {
    veltrix::elastic_pool_options options;
    options.queue_capacity = capacity_;
    options.min_workers = least_;
    options.max_workers = most_;
    options.on_exception = [this](const std::exception_ptr&) { ++failures_; };
    throws_in_hooks_ = from.one_in(4);
    options.on_start = [this](std::size_t) { hook(started_); };
    options.on_stop = [this](std::size_t) { hook(ended_); };
    options.start_fault = [this](std::size_t nth) { return nth == refused_thread_ ? EAGAIN : 0; };
    pool_.emplace(size_, std::move(options));
  }

  void run() {
    while (!from_.empty() && steps_ < most_steps) {
      ++steps_;
      step();
    }
    finish();
  }

 private:
  static constexpr int most_steps = 48;

  void step() {
    switch (from_.below(18)) {
      case 0:
      case 1:
      case 2: return post();
      case 3: return try_post();
      case 4: return post_bulk();
      case 5: return submit();
      case 6:
      case 7: return resize_by();
      case 8: return resize_to();
      case 9: return drain();
      case 10: return parallel();
      case 11: return group();
      case 12: return take_handle();
      case 13:
      case 14: return invoke();
      case 15: return invoke_beside_resize();
      case 16: return block();
      default:
        if (!from_.one_in(6)) return;
        trace::add("stop");
        pool_->stop();
        stopped_ = true;
        all_ran();
    }
  }

  job& next_job() {
    job& made = jobs_.emplace_back();
    made.throws = from_.one_in(6);
    made.posts = from_.one_in(6);
    return made;
  }
  auto work(job& does) {
    return [this, &does] {
      does.runs.fetch_add(1, std::memory_order_relaxed);
      if (does.posts) {
        // From a worker a post never waits for room, and is refused only after stop().
        const auto told = pool_->post([this] { nested_runs_.fetch_add(1); });
        if (told) nested_accepted_.fetch_add(1);
      }
      if (does.throws) throw std::runtime_error("a task fails");
    };
  }
  void accepted(const job& does) {
    ++accepted_;
    if (does.throws) ++expected_failures_;
  }

  void post() {
    trace::add("post");
    job& does = next_job();
    const auto told = pool_->post(work(does));
    agree(static_cast<bool>(told), !stopped_, "post is refused exactly after stop()");
    if (told) return accepted(does);
    require(told.status == post_status::closed && *told.why != '\0', "closed, with a reason");
    jobs_.pop_back();
  }
  void try_post() {
    trace::add("try_post");
    job& does = next_job();
    veltrix::task made(work(does));
    const auto told = pool_->try_post(std::move(made));
    agree(static_cast<bool>(told), !made, "a task is moved from exactly when accepted");
    if (stopped_) require(told.status == post_status::closed, "closed after stop()");
    if (told) return accepted(does);
    require(told.status == post_status::closed || told.status == post_status::full, "an answer");
    made.reset();
    jobs_.pop_back();
  }
  void post_bulk() {
    trace::add("post_bulk");
    std::vector<veltrix::task> tasks;
    const std::size_t count = from_.below(12);
    const std::size_t first = jobs_.size();
    for (std::size_t i = 0; i < count; ++i)
      tasks.emplace_back(work(next_job()));
    const auto told = pool_->post_bulk(tasks.begin(), count);
    agree(told.accepted, stopped_ ? 0 : count, "post_bulk takes all, or nothing after stop()");
    for (std::size_t i = 0; i < count; ++i)
      agree(static_cast<bool>(tasks[i]), i >= told.accepted,
            "the prefix accepted is what was moved");
    for (std::size_t i = 0; i < told.accepted; ++i)
      accepted(jobs_[first + i]);
    tasks.clear();
    while (jobs_.size() > first + told.accepted)
      jobs_.pop_back();
  }
  void submit() {
    if (handles_.size() == 8) return;
    trace::add("submit");
    const std::size_t value = from_.byte();
    const bool throws = value % 5 == 0;
    auto promise = pool_->submit([value, throws] {
      if (throws) throw std::runtime_error("a promise is broken");
      return value;
    });
    if (stopped_) {
      expect_cancelled(promise);
      return;
    }
    ++accepted_;
    handles_.push_back({std::move(promise), value, throws});
  }
  static void expect_cancelled(veltrix::task_handle<std::size_t>& promise) {
    try {
      static_cast<void>(promise.get());
      disagree("a task submitted after stop() gave a result", __FILE__, __LINE__);
    } catch (const veltrix::task_cancelled&) {}
  }
  void take_handle() {
    if (handles_.empty()) return;
    trace::add("get");
    handle oldest = std::move(handles_.front());
    handles_.pop_front();
    check_handle(oldest);
  }
  static void check_handle(handle& taken) {
    bool threw = false;
    try {
      agree(taken.promise.get(), taken.value, "the result of a task");
    } catch (const std::runtime_error&) {
      threw = true;
    }
    agree(threw, taken.throws, "the exception of a task goes to its handle");
  }

  void resize_by() {
    const auto delta = static_cast<std::int64_t>(from_.below(7)) - 3;
    trace::add("resize_by");
    resize(static_cast<std::int64_t>(size_) + delta,
           [&](const veltrix::resize_options& how) { return pool_->resize_by(delta, how); });
  }
  void resize_to() {
    trace::add("resize_to");
    const std::int64_t wanted = from_.one_in(8) ? static_cast<std::int64_t>(from_.any_size())
                                                : static_cast<std::int64_t>(from_.below(6));
    resize(wanted,
           [&](const veltrix::resize_options& how) { return pool_->resize_to(wanted, how); });
  }
  template <class Ask>
  void resize(std::int64_t wanted, Ask ask) {
    veltrix::resize_options how;
    const bool late = from_.one_in(5);  // a request for another generation
    if (late || from_.flag()) how.expect_generation = generation_ + (late ? 1 : 0);
    refused_thread_ = from_.one_in(4) ? from_.below(3) : none;
    const auto told = ask(how);
    judge(told, wanted, late);
    refused_thread_ = none;
    const auto stats = pool_->stats();
    if (stopped_) return;
    agree(stats.configured, size_, "stats: configured");
    agree(stats.generation, generation_, "stats: generation");
    require(stats.settled(), "an acknowledged pool has settled");
  }
  void judge(const veltrix::resize_result& told, std::int64_t wanted, bool late) {
    if (stopped_) {
      require(told.status == resize_status::backoff, "a stopped pool backs off");
      require(told.reason == backoff_reason::shutting_down, "a stopped pool says so");
      return;
    }
    if (late) {
      require(told.reason == backoff_reason::generation_moved, "a late request changes nothing");
      return;
    }
    const bool allowed =
        wanted >= static_cast<std::int64_t>(least_) && wanted <= static_cast<std::int64_t>(most_);
    if (!allowed) {
      require(told.code == refusal_code::out_of_bounds, "a size out of bounds is refused");
      agree(told.limit, wanted < static_cast<std::int64_t>(least_) ? least_ : most_,
            "the bound told");
      return;
    }
    const auto target = static_cast<std::size_t>(wanted);
    if (target > size_ && refused_thread_ < target - size_) {
      require(told.code == refusal_code::resource_limit, "a thread refused refuses the growth");
      agree(told.error, EAGAIN, "the error told");
      return;
    }
    require(told.status == resize_status::ack, "a size within bounds is acknowledged");
    if (target != size_) ++generation_;
    size_ = target;
    agree(told.running, size_, "an acknowledged size is running");
    agree(told.generation, generation_, "the generation told");
  }

  /// A tree of calls: each node splits into two or three, which split again, or calls one leaf.
  struct tree {
    std::size_t depth;
    std::size_t wide;     // nodes with an even number have three parts
    std::size_t thrower;  // the leaf that throws; those after it too, if `others_throw`
    bool others_throw;
    std::atomic<int> calls[27] = {};  // of each leaf
  };
  struct leaf_failure {
    std::size_t leaf;
  };
  static std::size_t leaves(const tree& of, std::size_t depth) {
    std::size_t count = 1;
    for (; depth != 0; --depth)
      count *= of.wide;
    return count;
  }
  void split(tree& of, std::size_t depth, std::size_t first) {
    if (depth == 0) {
      of.calls[first].fetch_add(1, std::memory_order_relaxed);
      if (first == of.thrower || (of.others_throw && first > of.thrower)) throw leaf_failure{first};
      return;
    }
    const std::size_t part = leaves(of, depth - 1);
    const auto nth = [&](std::size_t i) {
      return [this, &of, depth, from = first + i * part] { split(of, depth - 1, from); };
    };
    of.wide == 2 ? pool_->parallel_invoke(nth(0), nth(1))
                 : pool_->parallel_invoke(nth(0), nth(1), nth(2));
  }
  tree draw_tree() {
    const std::size_t depth = 1 + from_.below(3), wide = 2 + from_.below(2);
    const bool throws = from_.one_in(3);
    return {depth, wide, throws ? from_.below(27) : none, throws && from_.flag()};
  }
  /// Calls the tree, in a task or not. The first that threw, in order, comes out; the others are
  /// the handler's.
  void call_tree(tree& of, bool in_task) {
    std::size_t thrown = none;
    const auto call = [&] {
      try {
        split(of, of.depth, 0);
      } catch (const leaf_failure& failed) {
        thrown = failed.leaf;
      }
    };
    if (in_task && !stopped_) {
      pool_->submit(call).get();
    } else {
      call();
    }
    const std::size_t count = leaves(of, of.depth);
    for (std::size_t i = 0; i < count; ++i)
      agree(of.calls[i].load(), 1, "parallel_invoke makes each call once, before it returns");
    if (of.thrower >= count) return agree(thrown, none, "nothing was thrown");
    agree(thrown, of.thrower, "the first that threw, in the order of the calls, comes out");
    if (of.others_throw) expected_failures_ += count - 1 - of.thrower;
  }
  void invoke() {
    trace::add("parallel_invoke");
    tree all = draw_tree();
    call_tree(all, from_.flag());
  }
  /// The tree is called on another thread while this one changes the size.
  void invoke_beside_resize() {
    trace::add("parallel_invoke beside a resize");
    tree all = draw_tree();
    const bool in_task = from_.flag();
    std::thread caller([&] { call_tree(all, in_task); });
    resize_to();
    caller.join();
  }
  /// A task says that it blocks: it is counted while it does, and no longer.
  void block() {
    if (stopped_) return;
    trace::add("blocking_scope");
    const bool inside = pool_
                            ->submit([this] {
                              const veltrix::blocking_scope scope(*pool_);
                              return pool_->stats().blocked == 1;
                            })
                            .get();
    require(inside, "one task blocks");
    const veltrix::blocking_scope outside(*pool_);
    agree(pool_->stats().blocked, 0U, "nobody blocks, and who is no worker does not count");
  }

  void hook(std::atomic<std::size_t>& times) {
    times.fetch_add(1);
    if (!throws_in_hooks_) return;
    hook_failures_.fetch_add(1);
    throw std::runtime_error("a hook fails");
  }

  void drain() {
    trace::add("drain");
    if (from_.one_in(4)) {  // late already: true only if nothing is left
      if (pool_->drain(veltrix::steady_clock::now())) all_ran();
      return;
    }
    require(pool_->drain(), "a drain without a deadline succeeds");
    all_ran();
  }
  void parallel() {
    trace::add("parallel_for");
    const std::size_t count = from_.below(20);
    std::vector<std::atomic<int>> hits(count);
    const veltrix::parallel_options how{.grain = from_.below(4)};
    pool_->parallel_for(std::size_t{0}, count, how, [&](std::size_t i) { hits[i].fetch_add(1); });
    for (const auto& each : hits)
      agree(each.load(), 1, "parallel_for calls once for each index");
  }
  void group() {
    trace::add("task_group");
    std::atomic<std::size_t> ran{0};
    const std::size_t count = from_.below(6);
    const bool throws = from_.one_in(4) && count != 0;
    veltrix::task_group together(*pool_);
    for (std::size_t i = 0; i < count; ++i) {
      together.run([&ran, i, throws] {
        ran.fetch_add(1);
        if (throws && i == 0) throw std::runtime_error("one of a group fails");
      });
    }
    bool threw = false;
    try {
      together.wait();
    } catch (const std::runtime_error&) {
      threw = true;
    }
    agree(threw, throws, "wait() rethrows the failure of the group");
    agree(ran.load(), count, "wait() returns when all have run");
  }

  /// Once nothing is queued or running: each accepted task ran once, no other did.
  void all_ran() {
    for (const job& each : jobs_)
      agree(each.runs.load(), 1, "an accepted task runs exactly once");
    agree(nested_runs_.load(), nested_accepted_.load(), "tasks posted by tasks run once");
    const auto stats = pool_->stats();
    agree(stats.queued, 0U, "stats: queued, once drained");
    agree(stats.busy, 0U, "stats: busy, once drained");
    agree(stats.posted, stats.completed, "stats: all that was posted is completed");
    require(stats.posted >= accepted_ + nested_accepted_.load(), "stats: posted");
    agree(failures_.load(), expected_failures_ + hook_failures_.load(),
          "each failure reached the handler");
  }

  void finish() {
    trace::add("finish");
    while (!handles_.empty())
      take_handle();
    if (from_.flag()) {
      pool_->stop();
      stopped_ = true;
      all_ran();
    }
    pool_.reset();
    agree(started_.load(), ended_.load(), "each worker that began has ended");
    for (const job& each : jobs_)
      agree(each.runs.load(), 1, "an accepted task runs exactly once, the destructor sees to it");
    agree(failures_.load(), expected_failures_ + hook_failures_.load(),
          "each failure reached the handler");
  }

  static constexpr std::size_t none = ~std::size_t{0};

  byte_source& from_;
  const std::size_t least_;
  const std::size_t most_;
  std::size_t size_;
  const std::size_t capacity_;
  std::uint64_t generation_ = 1;
  bool stopped_ = false;
  int steps_ = 0;
  std::deque<job> jobs_;  // stay where they are
  std::deque<handle> handles_;
  std::uint64_t accepted_ = 0;
  std::uint64_t expected_failures_ = 0;
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::uint64_t> nested_runs_{0};
  std::atomic<std::uint64_t> nested_accepted_{0};
  std::atomic<std::size_t> refused_thread_{none};
  bool throws_in_hooks_ = false;
  std::atomic<std::size_t> started_{0};
  std::atomic<std::size_t> ended_{0};
  std::atomic<std::size_t> hook_failures_{0};
  std::optional<veltrix::elastic_pool> pool_;  // last: its threads use the others
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
