// Work that a thread splits and waits for, on a pool whose worker it may itself be.
// Use for: task_group and parallel_for of elastic_pool. Internal.
// Not for: work that nobody waits for.
// Threads: all members may be called from any thread.
// Progress: whoever waits runs what nobody has begun, so it waits only for work in progress.
// Callbacks: tasks run with no lock held.
// Exceptions: the first one of the work is kept for whoever waits.
// Lifetime: a group lasts as long as what it waits for; late entries find nothing and end.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "message.hpp"
#include "pool_core.hpp"
#include "sync.hpp"
#include "task.hpp"
#include "task_nodes.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

class group_state;

/// A task of a group. Until it is claimed it stands in the group's list; an entry of the pool's
/// queue leads to it as well, and may do so still when the group is gone.
///
/// I1: whoever sets `claimed` runs the task, and the group waits for it.
/// I2: two hold it, its entry and its runner. The second to leave ends it.
struct group_item {
  group_item(task given, group_state& waits) noexcept : work(std::move(given)), group(waits) {}
  group_item(const group_item&) = delete;
  group_item& operator=(const group_item&) = delete;

  static constexpr unsigned claimed = 1;
  static constexpr unsigned left = 2;  // by one of the two

  [[nodiscard]] bool claim() noexcept {
    // relaxed: what it leads to came with the list's lock, or with the entry
    return (marks.fetch_or(claimed, sync::relaxed) & claimed) == 0;
  }
  [[nodiscard]] bool entry_is_gone() const noexcept {
    return marks.load(sync::relaxed) >= left;  // relaxed: a glance
  }
  static void leave(group_item* item) noexcept {
    // (1) acq_rel-add; pairs with acq_rel-add (1) of the other. Forbids: it ends under the other.
    if (item->marks.fetch_add(left, sync::acq_rel) >= left) delete item;
  }

  task work;
  group_state& group;           // alive while the task has not ended
  group_item* older = nullptr;  // guarded by the group's mutex
  group_item* newer = nullptr;  // guarded by the group's mutex
  bool listed = false;          // guarded by the group's mutex
  // relaxed: only its own worker finds it there, see wait_for_group(); null: not in a deque
  sync::atomic<task_node*> entry{nullptr};
  sync::atomic<unsigned> marks{0};  // see I1 and I2
};

/// Why a waiter never deadlocks: a group's unbegun tasks are run by its own waiter, and those begun
/// are run by threads whose own waits are for groups they made themselves, which end first.
///
/// I1: pending_ counts the tickets alive and the tasks not ended. Only make_ticket() and add()
///     raise it; each ticket and each task lowers it once.
/// I2: who lowers it to 0 touches the group no more, but for giving the lock back.
class group_state {
 public:
  /// One unit that a group waits for. Moves; spent once, by finish() or by its end.
  class ticket {
   public:
    ticket(ticket&& other) noexcept
        : group_(std::exchange(other.group_, nullptr)), file_(other.file_), line_(other.line_) {
      other.file_ = "a move";
    }
    ticket& operator=(ticket&& other) noexcept {
      if (this != &other) {
        spend();
        group_ = std::exchange(other.group_, nullptr);
        file_ = std::exchange(other.file_, "a move");
        line_ = other.line_;
      }
      return *this;
    }
    ~ticket() { spend(); }

    /// Whether it still counts.
    [[nodiscard]] bool valid() const noexcept { return group_ != nullptr; }

    /// Spends the ticket. A second time is misuse: checked builds abort and name both places.
    void finish(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) && noexcept {
      if (VELTRIX_CHECKED != 0 && !valid()) report_reuse(file, line);
      spend();
      file_ = file;
      line_ = line;
    }

   private:
    friend class group_state;
    explicit ticket(group_state& group) noexcept : group_(&group) {}

    void spend() noexcept {
      if (group_ != nullptr) std::exchange(group_, nullptr)->one_ended(nullptr);
    }

    void report_reuse(const char* file, unsigned line) const noexcept {
      char sentence[512];
      std::snprintf(sentence, sizeof sentence,
                    "a ticket was finished twice: first by %s:%u, now by %s:%u", file_, line_, file,
                    line);
      misuse("ticket.valid()", sentence, file, static_cast<int>(line));
    }

    group_state* group_;     // it waits for this; null once spent or moved from
    const char* file_ = "";  // where it was spent
    unsigned line_ = 0;
  };

  /// @param sink  outlives the group
  explicit group_state(failure_sink& sink) noexcept : sink_(sink) {}
  group_state(const group_state&) = delete;
  group_state& operator=(const group_state&) = delete;

  [[nodiscard]] ticket make_ticket() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    raise_count();
    return ticket(*this);
  }

  /// Adds a task to those not begun.
  /// @return it, to be given to run_entry() or group_item::leave() once
  [[nodiscard]] group_item* add(task work) {
    auto* const added = new group_item(std::move(work), *this);
    const sync::lock_guard<sync::mutex> lock(mutex_);
    raise_count();
    added->older = newest_;
    if (newest_ != nullptr) newest_->newer = added;
    newest_ = added;
    added->listed = true;
    if (waiters_ != 0) changed_.notify_one();
    return added;
  }

  /// What the entry of a task in the pool's queue does: runs it, unless somebody has begun it.
  static void run_entry(group_item* item) noexcept {
    if (item->claim()) {
      group_state& group = item->group;
      group.run(*item);
      group.one_ended(item);
      group_item::leave(item);
    }
    group_item::leave(item);
  }

  /// Runs the task added last that nobody has begun, if there is one.
  /// @param withdraw  called with a task whose entry is of no use any more; true: it has it back
  template <class Withdraw>
  bool run_one(Withdraw withdraw) noexcept {
    group_item* const mine = take_newest();
    if (mine == nullptr) return false;
    run_here(mine, withdraw);
    one_ended(nullptr);
    return true;
  }

  /// Runs what nobody has begun, then waits for the rest.
  /// @param withdraw  as in run_one()
  /// @return the first exception since the last wait, or null
  template <class Withdraw>
  [[nodiscard]] std::exception_ptr wait(Withdraw withdraw) noexcept {
    sync::unique_lock<sync::mutex> lock(mutex_);
    for (;;) {
      if (group_item* const mine = unlist_newest()) {
        lock.unlock();
        run_here(mine, withdraw);
        lock.lock();
        lower();
        continue;
      }
      if (pending_ == 0) {
        settled_ = raised_;
        return std::exchange(failure_, nullptr);
      }
      ++waiters_;
      // Woken by lower(), after it wrote pending_, and by add().
      while (pending_ != 0 && newest_ == nullptr)
        changed_.wait(lock);
      --waiters_;
    }
  }

  /// Whether a wait has returned and nothing was added since. For who ends the group: nobody else
  /// adds to it any more, so this needs no lock.
  [[nodiscard]] bool settled() const noexcept { return settled_ == raised_; }

 private:
  /// The capture ends with its task.
  void run(group_item& item) noexcept {
    VELTRIX_TRY {
      item.work();
    }
    VELTRIX_CATCH_ALL {
      keep(std::current_exception());
    }
    item.work.reset();
  }

  template <class Withdraw>
  void run_here(group_item* mine, Withdraw withdraw) noexcept {
    if (withdraw(*mine)) group_item::leave(mine);
    run(*mine);
    group_item::leave(mine);
  }

  void keep(std::exception_ptr failure) noexcept {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      if (!failure_) {
        failure_ = std::move(failure);
        return;
      }
    }
    sink_.report(std::move(failure));  // only the first is kept; none vanishes
  }

  [[nodiscard]] group_item* take_newest() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return unlist_newest();
  }

  /// The task added last that the caller has claimed, or null. mutex_ is held.
  [[nodiscard]] group_item* unlist_newest() noexcept {
    while (newest_ != nullptr) {
      group_item* const found = newest_;
      unlist(*found);
      if (found->claim()) return found;  // else its entry was quicker
    }
    return nullptr;
  }

  /// mutex_ is held.
  void unlist(group_item& item) noexcept {
    item.listed = false;
    (item.newer == nullptr ? newest_ : item.newer->older) = item.older;
    if (item.older != nullptr) item.older->newer = item.newer;
  }

  /// A ticket was spent, or a task has ended; `item` may be in the list.
  void one_ended(group_item* item) noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (item != nullptr && item->listed) unlist(*item);
    lower();
  }

  /// mutex_ is held.
  void raise_count() noexcept {
    ++pending_;
    ++raised_;
  }

  /// mutex_ is held.
  void lower() noexcept {
    --pending_;
    if (pending_ == 0 && waiters_ != 0) changed_.notify_all();
  }

  failure_sink& sink_;                // thread-safe by itself
  sync::mutex mutex_;                 // guards everything below
  sync::condition_variable changed_;  // pending_ reached 0, or there is a task to begin
  group_item* newest_ = nullptr;      // guarded by mutex_
  std::size_t pending_ = 0;           // guarded by mutex_
  std::size_t waiters_ = 0;           // guarded by mutex_
  std::uint64_t raised_ = 0;          // guarded by mutex_, but see settled(); times it was raised
  std::uint64_t settled_ = 0;         // guarded by mutex_, but see settled(); of that, at a wait
  std::exception_ptr failure_;        // guarded by mutex_; the first not taken yet
};

/// Adds a task to a group and tells the pool of it. A task of the group is run here if the pool
/// does not take the entry.
inline void run_in_group(pool_core& core, group_state& group, task work) {
  group_item* const added = group.add(std::move(work));
  VELTRIX_TRY {
    task entry([added] { group_state::run_entry(added); });
    if (core.push(entry, when_full::refuses, &added->entry)) return;
  }
  VELTRIX_CATCH_ALL {
    // No memory for the entry: as if the queue were full.
  }
  group_item::leave(added);
  group.run_one([](const group_item&) { return false; });
}

/// Waits for a group. What the calling worker runs itself it takes out of its own deque, if it is
/// the newest there.
/// @return as group_state::wait()
[[nodiscard]] inline std::exception_ptr wait_for_group(pool_core& core,
                                                       group_state& group) noexcept {
  return group.wait([&core](const group_item& item) {
    // While the entry is not gone its node is nobody else's, so no other task is taken for it.
    const task_node* const entry = item.entry.load(sync::relaxed);
    return entry != nullptr && !item.entry_is_gone() && core.withdraw(entry);
  });
}

/// How a range is cut: `chunks` pieces of `grain` indexes, the last one shorter.
struct range_cut {
  std::uint64_t total = 0;
  std::uint64_t grain = 1;
  std::uint64_t chunks = 0;

  /// @param grain  indexes per piece; 0: about eight pieces for each of `threads`
  [[nodiscard]] static range_cut of(std::uint64_t total, std::uint64_t grain,
                                    std::size_t threads) noexcept {
    constexpr std::uint64_t pieces_per_thread = 8;
    if (grain == 0) grain = std::max<std::uint64_t>(1, total / (pieces_per_thread * threads));
    return {total, grain, total / grain + (total % grain == 0 ? 0 : 1)};
  }
};

/// Calls `body(at)` for `first` <= at < `end`, and keep(exception) for those that throw.
template <class Body, class Keep>
void call_each(Body& body, std::uint64_t first, std::uint64_t end, const Keep& keep) noexcept {
  for (std::uint64_t at = first; at < end; ++at) {
    VELTRIX_TRY {
      body(at);
    }
    VELTRIX_CATCH_ALL {
      keep(std::current_exception());
    }
  }
}

/// What one thread does of a range by itself.
template <class Body>
class solo_run {
 public:
  solo_run(Body& body, failure_sink& sink) noexcept : body_(body), sink_(sink) {}

  void run(std::uint64_t first, std::uint64_t end) noexcept {
    call_each(body_, first, end, [this](std::exception_ptr failure) {
      if (failure_)
        return sink_.report(std::move(failure));  // only the first is kept; none vanishes
      failure_ = std::move(failure);
    });
  }

  /// From 0 on, for as long as it takes to call a worker, by pieces of growing length.
  /// @return where it stopped
  [[nodiscard]] std::uint64_t run_a_while(std::uint64_t total) noexcept {
    const auto began = sync::steady_now();
    std::uint64_t at = 0;
    for (std::uint64_t piece = 1;; piece *= 4) {
      const std::uint64_t end = at + std::min(piece, total - at);
      run(at, end);
      at = end;
      if (at == total || sync::steady_now() - began >= call_of_a_worker) return at;
    }
  }

  [[nodiscard]] std::exception_ptr& failure() noexcept { return failure_; }

 private:
  static constexpr std::chrono::microseconds call_of_a_worker{5};

  Body& body_;
  failure_sink& sink_;
  std::exception_ptr failure_;  // the first
};

/// One parallel_for. The body is the caller's: it is called only for a chunk claimed while the
/// caller waits.
template <class Body>
class range_state {
 public:
  /// @param first    the index it begins with
  /// @param failure  of an earlier index, or null
  range_state(Body& body, range_cut cut, std::shared_ptr<failure_sink> sink,
              std::uint64_t first = 0, std::exception_ptr failure = nullptr) noexcept
      : body_(body),
        cut_(cut),
        first_(first),
        sink_(std::move(sink)),
        failure_(std::move(failure)) {}
  range_state(const range_state&) = delete;
  range_state& operator=(const range_state&) = delete;

  /// Claims chunk after chunk and runs it, until none is left.
  void help() noexcept {
    std::uint64_t mine = 0;
    for (;;) {
      const std::uint64_t chunk = next_.fetch_add(1, sync::relaxed);
      if (chunk >= cut_.chunks) break;
      run(chunk);
      ++mine;
    }
    if (mine == 0) return;
    const sync::lock_guard<sync::mutex> lock(mutex_);
    done_ += mine;
    if (done_ == cut_.chunks) all_done_.notify_all();
  }

  /// Waits for the chunks others have claimed. Throws the first exception.
  void wait() {
    std::exception_ptr failure;
    {
      sync::unique_lock<sync::mutex> lock(mutex_);
      while (done_ != cut_.chunks)
        all_done_.wait(lock);  // woken by help(), after it wrote done_
      failure = std::exchange(failure_, nullptr);
    }
    if (failure) std::rethrow_exception(std::move(failure));
  }

 private:
  void run(std::uint64_t chunk) noexcept {
    const std::uint64_t from = chunk * cut_.grain;
    const std::uint64_t count = std::min(cut_.grain, cut_.total - from);
    call_each(body_, first_ + from, first_ + from + count,
              [this](std::exception_ptr failure) { keep(std::move(failure)); });
  }

  void keep(std::exception_ptr failure) noexcept {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      if (!failure_) {
        failure_ = std::move(failure);
        return;
      }
    }
    sink_->report(std::move(failure));  // only the first is rethrown; none vanishes
  }

  Body& body_;
  const range_cut cut_;
  const std::uint64_t first_;
  const std::shared_ptr<failure_sink> sink_;  // thread-safe by itself
  // relaxed: a claim must only be unique; what the body wrote is published by mutex_
  sync::atomic<std::uint64_t> next_{0};
  sync::mutex mutex_;                  // guards everything below
  sync::condition_variable all_done_;  // done_ reached the number of chunks
  std::uint64_t done_ = 0;             // guarded by mutex_
  std::exception_ptr failure_;         // guarded by mutex_; the first
};

/// Offers the pool `copies` entries that help `state`; as many as fit, none is waited for.
template <class State>
void invite(pool_core& core, const std::shared_ptr<State>& state, std::uint64_t copies) {
  constexpr std::size_t at_once = 32;
  while (copies != 0) {
    task entries[at_once];
    const auto now = static_cast<std::size_t>(std::min<std::uint64_t>(copies, at_once));
    for (std::size_t i = 0; i < now; ++i)
      entries[i] = task([state] { state->help(); });
    const auto [taken, stopped] = core.push_all(entries, now, when_full::refuses);
    if (taken < now) return;
    copies -= now;
  }
}

[[noreturn]] inline void refuse_begin(std::int64_t begin) {
  raise(std::invalid_argument(describe({"elastic_pool::parallel_for", "begin", text_of(begin),
                                        "0 and above, as `end` is unsigned", "no call was made",
                                        "give both ends a signed type"})));
}

/// Calls `body(i)` for 0 <= i < total on the pool and the calling thread. Many indices without a
/// chosen grain may be little work: the caller begins alone then, and asks others only if it is not
/// through when a call would have come to them.
template <class Body>
void share_range(pool_core& core, std::uint64_t total, std::uint64_t grain, Body& body) {
  constexpr std::uint64_t many = 64;  // to each thread: one that is long delays the others little
  if (total == 0) return;
  const std::size_t workers = core.workers();
  const auto sink = core.sink();
  solo_run<Body> alone(body, *sink);
  const bool maybe_little = grain == 0 && total / many > workers;
  const std::uint64_t begun = maybe_little ? alone.run_a_while(total) : 0;
  if (begun < total) {
    const range_cut cut = range_cut::of(total - begun, grain, workers + 1);
    std::shared_ptr<range_state<Body>> state;
    VELTRIX_TRY {
      state =
          std::make_shared<range_state<Body>>(body, cut, sink, begun, std::move(alone.failure()));
      invite(core, state, std::min<std::uint64_t>(cut.chunks - 1, workers));
    }
    VELTRIX_CATCH_ALL {
      // No memory to invite anyone: the caller does what is left by itself.
    }
    if (state) {
      state->help();
      return state->wait();
    }
    alone.run(begun, total);
  }
  if (alone.failure()) std::rethrow_exception(std::move(alone.failure()));
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
