// Where the workers of a pool take their tasks from: what others post, their own, each other's.
// Use for: elastic_pool. Internal.
// Not for: deciding who works; it only holds work and counts it.
// Threads: inject() and the looks from any thread; what takes a worker_share from its worker.
// Progress: lock-free but for what is spilled, and for nodes beyond a worker's own.
// Callbacks: the noexcept moves of small captures; under a lock only for what is spilled.
// Exceptions: what adds may throw std::bad_alloc and has added nothing then; taking never throws.
// Lifetime: tasks left end with it, unrun.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "block_array.hpp"
#include "branches.hpp"
#include "idle_workers.hpp"
#include "injection_ring.hpp"
#include "patience.hpp"
#include "steal_deque.hpp"
#include "sync.hpp"
#include "task.hpp"
#include "task_nodes.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What one worker has for its work. Used by one thread after another, as workers come and go.
struct worker_share {
  steal_deque<task_node> own;  // pushed and popped by the worker, stolen from by all
  open_branches branches;      // forked by what the worker runs; stolen from by all
  // relaxed, of all three: one writer; who compares them orders the reads
  alignas(cache_line) sync::atomic<std::uint64_t> posted{0};  // to its own deque
  sync::atomic<std::uint64_t> steps{0};                       // 2 * ended + (inside a task)
  sync::atomic<std::uint64_t> over_capacity{0};               // of those posted
  node_cache nodes;                                           // the worker's
  std::size_t index = 0;                                      // constant
  std::size_t victim = 0;                                     // the worker's; where it looks first
  std::uint32_t turn = 0;                                     // the worker's; tasks taken
  patience looks_on;                                          // the worker's; before it sleeps
  stand_off away;                                             // the worker's; from the ring's head
  bool searching = false;                                     // the worker's
  bool marked = false;                                        // the worker's; its bit in marks_
  idle_workers::seat seat;
};

enum class past_capacity : bool { no, yes };

/// Who posts a task and may take it back is told which node it is in.
using node_place = sync::atomic<task_node*>;

/// What was the newest in a deque: the task that was looked for, another one, or there was none.
enum class taken_back : std::uint8_t { nothing, it, another };

/// A worker takes its own newest task first, which it has in its cache; then the oldest of what
/// others posted; then what was spilled; then, when it searches, the oldest of another worker, or
/// the oldest branch of another's task: see steal_branch().
/// Every 64th time it takes an oldest task first: of what others posted, of what was spilled, of
/// its own, of another worker, of each in turn.
///
/// I1: a task is in one place, and leaves it once.
/// I2: marks_ has the bit of every worker whose deques hold tasks or branches.
/// I3: no place is left for ever by a worker that takes tasks, however many the others hold.
class work_supply {
 public:
  explicit work_supply(std::size_t capacity) : ring_(capacity), capacity_(capacity) {}
  work_supply(const work_supply&) = delete;
  work_supply& operator=(const work_supply&) = delete;

  /// Makes shares for `workers` in all. One thread at a time.
  void reserve(std::size_t workers) {
    while (marks_.size() * 64 < workers)
      marks_.grow();
    while (shares_.size() < workers) {
      const std::size_t first = shares_.size();
      shares_.grow();
      for (std::size_t i = first; i < shares_.size(); ++i)
        shares_[i].index = shares_[i].victim = i;
    }
  }

  [[nodiscard]] worker_share& share(std::size_t index) noexcept { return shares_[index]; }

  // --- adding ------------------------------------------------------------------------------------

  [[nodiscard]] injection_ring<task>& ring() noexcept { return ring_; }
  [[nodiscard]] const injection_ring<task>& ring() const noexcept { return ring_; }

  /// Whether what others posted and what this worker has are the capacity together.
  [[nodiscard]] bool full_for(const worker_share& mine) const noexcept {
    return ring_.size() + mine.own.size() >= capacity_;
  }

  /// Adds to the worker's own deque.
  /// @param where  if not null, gets the node before others can take it
  void push(worker_share& mine, task& work, past_capacity counted, node_place* where = nullptr) {
    mine.own.reserve();
    task_node& node = mine.nodes.take(nodes_);
    if (where != nullptr) where->store(&node, sync::relaxed);  // relaxed: for this worker
    node.work() = std::move(work);
    count_one(mine.posted);
    if (counted == past_capacity::yes) count_one(mine.over_capacity);
    if (!mine.marked) mark(mine);
    mine.own.push(&node);
  }

  /// For a worker inside a task: ends the newest task of its deque unrun, if it is in that node.
  [[nodiscard]] taken_back take_back(worker_share& mine, const task_node* where) noexcept {
    task_node* const newest = mine.own.pop();
    if (newest == nullptr) return taken_back::nothing;
    if (newest != where) {
      mine.own.push(newest);
      return taken_back::another;
    }
    newest->work().reset();
    give_back(mine, *newest);
    step(mine, 2);  // one more has ended, and the worker is inside one still
    return taken_back::it;
  }

  /// Lets other workers have a branch of what this worker runs.
  /// @return as open_branches::fork()
  [[nodiscard]] bool fork(worker_share& mine, branch& added) noexcept {
    if (!mine.marked) [[unlikely]]
      mark(mine);
    return mine.branches.fork(added);
  }

  /// Adds past the capacity, for workers that have no deque or leave it.
  void spill(task& work) {
    task_node& node = nodes_.take();
    node.work() = std::move(work);
    const sync::lock_guard<sync::mutex> lock(spilling_);
    append(node);
    ++posted_past_;
  }

  /// Leaves what the worker has to the others.
  /// @return whether there was anything
  bool hand_over(worker_share& leaving) noexcept {
    bool any = false;
    {
      const sync::lock_guard<sync::mutex> lock(spilling_);
      while (!leaving.own.empty()) {
        if (task_node* const oldest = leaving.own.steal()) {
          append(*oldest);
          any = true;
        }
      }
    }
    unmark(leaving);
    return any;
  }

  // --- taking ------------------------------------------------------------------------------------

  /// @param value  empty; gets the task if it was posted by another thread
  /// @return the node of another task, to be given back when it has run; or null
  [[nodiscard]] task_node* take(worker_share& mine, task& value) noexcept {
    constexpr std::uint32_t fair = sync::repeatable ? 2 : 64;
    if (++mine.turn % fair == 0) [[unlikely]] {
      task_node* const oldest = take_oldest(mine, value, mine.turn / fair);
      if (oldest != nullptr || value) return oldest;
    }
    if (task_node* const newest = mine.own.pop()) return newest;
    if (ring_.pop(value, mine.away)) return nullptr;
    if (task_node* const spilled = take_spilled()) return spilled;
    return mine.searching ? steal(mine) : nullptr;
  }

  /// For a worker that searches: the oldest branch of another's task, and whose it is.
  [[nodiscard]] std::pair<branch*, open_branches*> steal_branch(worker_share& mine) noexcept {
    branch* stolen = nullptr;
    search(mine, [&](worker_share& victim) {
      stolen = victim.branches.steal();
      return stolen != nullptr;
    });
    return {stolen, &shares_[mine.victim].branches};
  }

  void give_back(worker_share& mine, task_node& spent) noexcept {
    mine.nodes.give_back(spent, nodes_);
  }

  /// Its deque is empty: thieves need not look there.
  void unmark(worker_share& mine) noexcept {
    if (!mine.marked) return;
    mine.marked = false;
    // relaxed: a bit seen late costs a look
    marks_[mine.index / 64].fetch_and(~bit_of(mine), sync::relaxed);
  }

  // --- looking -----------------------------------------------------------------------------------

  /// Whether there is a task that a searching worker could take.
  [[nodiscard]] bool ready() const noexcept {
    return ring_.ready() || spilled_.load(sync::relaxed) != 0 ||  // relaxed: as in stealable()
           stealable();
  }

  /// Whether there is a task, if perhaps on its way into the ring.
  [[nodiscard]] bool holds_any() const noexcept { return holds_shared() || stealable(); }

  /// The same, of those that are in no worker's deque.
  [[nodiscard]] bool holds_shared() const noexcept {
    return ring_.claimed() || spilled_.load(sync::relaxed) != 0;  // relaxed: as in stealable()
  }

  [[nodiscard]] bool stealable() const noexcept {
    const std::size_t words = marks_.size();
    for (std::size_t word = 0; word < words; ++word) {
      // (3) acquire-load; pairs with release-or (4). Sees: the share, be it of a worker that came
      // since. What makes who goes to sleep, or stops searching, see the bit is a fence before it.
      for (std::uint64_t bits = marks_[word].load(sync::acquire); bits != 0; bits &= bits - 1) {
        const auto at = static_cast<std::size_t>(std::countr_zero(bits));
        const worker_share& other = shares_[word * 64 + at];
        if (!other.own.empty() || !other.branches.empty()) return true;
      }
    }
    return false;
  }

  /// Tasks ever added, and of them, ended, and inside. What was added is read last: so what ended
  /// was added, and if both are equal, nothing was queued or ran when the first was read.
  struct counts {
    std::uint64_t ended = 0;
    std::uint64_t inside = 0;
    std::uint64_t posted = 0;
    std::uint64_t over_capacity = 0;
  };
  [[nodiscard]] counts count() const noexcept {
    counts seen;
    const std::size_t shares = shares_.size();
    for (std::size_t i = 0; i < shares; ++i) {
      // (1) acquire-load; pairs with release-store (2). Sees: that those tasks were added, and what
      // they added.
      const std::uint64_t steps = shares_[i].steps.load(sync::acquire);
      seen.ended += steps / 2;
      seen.inside += steps % 2;
    }
    seen.posted = ring_.pushed();
    for (std::size_t i = 0; i < shares; ++i) {
      // relaxed: see worker_share
      seen.posted += shares_[i].posted.load(sync::relaxed);
      // relaxed: see worker_share
      seen.over_capacity += shares_[i].over_capacity.load(sync::relaxed);
    }
    const sync::lock_guard<sync::mutex> lock(spilling_);
    seen.posted += posted_past_;
    seen.over_capacity += posted_past_;
    return seen;
  }

  /// The worker begins a task, or has ended it.
  static void step(worker_share& mine, std::uint64_t count = 1) noexcept {
    const std::uint64_t steps = mine.steps.load(sync::relaxed);  // relaxed: its own
    // (2) release-store; pairs with acquire-load (1). Publishes: what the task did, and its adding.
    mine.steps.store(steps + count, sync::release);
  }

 private:
  static void count_one(sync::atomic<std::uint64_t>& counter) noexcept {
    counter.store(counter.load(sync::relaxed) + 1, sync::relaxed);  // relaxed: see worker_share
  }

  [[nodiscard]] static std::uint64_t bit_of(const worker_share& mine) noexcept {
    return std::uint64_t{1} << mine.index % 64;
  }

  void mark(worker_share& mine) noexcept {
    mine.marked = true;
    // (4) release-or; pairs with acquire-load (3), acquire-load (5). Publishes: the share, made
    // before its worker was.
    marks_[mine.index / 64].fetch_or(bit_of(mine), sync::release);
  }

  /// Begins with another of the places each time, as none need ever be empty: see I3.
  [[gnu::noinline]] task_node* take_oldest(worker_share& mine, task& value,
                                           std::uint32_t first) noexcept {
    constexpr std::uint32_t places = 4;
    for (std::uint32_t place = first; place != first + places; ++place) {
      task_node* oldest = nullptr;
      switch (place % places) {
        case 0:
          if (ring_.pop(value, mine.away)) return nullptr;
          break;
        case 1: oldest = take_spilled(); break;
        case 2: oldest = mine.own.steal(); break;
        default: oldest = steal(mine); break;
      }
      if (oldest != nullptr) return oldest;
    }
    return nullptr;
  }

  void append(task_node& last) noexcept {
    last.next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = &last;
    last_ = &last;
    spilled_.fetch_add(1, sync::relaxed);  // relaxed: who looks before sleep has a fence before it
  }

  [[nodiscard]] task_node* take_spilled() noexcept {
    if (spilled_.load(sync::relaxed) == 0) return nullptr;  // relaxed: a glance
    const sync::lock_guard<sync::mutex> lock(spilling_);
    task_node* const oldest = first_;
    if (oldest == nullptr) return nullptr;
    first_ = oldest->next;
    spilled_.fetch_sub(1, sync::relaxed);  // relaxed: as above
    return oldest;
  }

  /// The oldest task of another worker.
  [[nodiscard]] task_node* steal(worker_share& mine) noexcept {
    task_node* stolen = nullptr;
    search(mine, [&](worker_share& victim) {
      stolen = victim.own.steal();
      return stolen != nullptr;
    });
    return stolen;
  }

  /// Asks the other workers that may have something, beginning with where the last was found, until
  /// one has given something.
  template <class Gives>
  void search(worker_share& mine, Gives gives) noexcept {
    const std::size_t words = marks_.size();
    const std::size_t first = mine.victim / 64 < words ? mine.victim / 64 : 0;
    for (std::size_t i = 0; i <= words; ++i) {
      const std::size_t word = (first + i) % words;
      // (5) acquire-load; pairs with release-or (4). Sees: as (3).
      std::uint64_t bits = marks_[word].load(sync::acquire);
      // The first word twice: its bits from the last victim on, then those before.
      if (i == 0) bits &= ~std::uint64_t{0} << mine.victim % 64;
      for (; bits != 0; bits &= bits - 1) {
        const std::size_t at = word * 64 + static_cast<std::size_t>(std::countr_zero(bits));
        if (at == mine.index || !gives(shares_[at])) continue;
        mine.victim = at;
        return;
      }
    }
  }

  injection_ring<task> ring_;
  const std::size_t capacity_;
  block_array<worker_share, sync::repeatable ? 2 : 8> shares_;
  block_array<sync::atomic<std::uint64_t>, 1> marks_;  // one bit for each share, see I2
  mutable sync::mutex spilling_;                       // guards the list of spilled tasks
  task_node* first_ = nullptr;                         // guarded by spilling_; the oldest
  task_node* last_ = nullptr;                          // guarded by spilling_; of a list not empty
  std::uint64_t posted_past_ = 0;                      // guarded by spilling_
  sync::atomic<std::size_t> spilled_{0};               // written under spilling_
  node_store nodes_;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
