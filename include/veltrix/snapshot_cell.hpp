// One value that many threads read and few replace: readers take the newest complete version.
// Use for: configuration, routing tables, feature flags; anything replaced whole.
// Not for: counters, or values that change as often as they are read.
// Threads: all members from any thread; a cached_reader belongs to one thread at a time.
// Progress: reads are lock-free, wait for no writer, and write nothing that another reader reads
//   (but share(), and a thread's fifth guard); a write takes a lock, and retries when it must build
//   on a version that was replaced meanwhile.
// Callbacks: validators, update and derive functions, comparisons, subscribers and T's special
//   members run with no lock held; subscribers one at a time, in version order.
// Exceptions: what T, the validator and update functions throw, std::bad_alloc, snapshot_refused;
//   the version in force stays. Those of subscribers are caught and counted.
// Lifetime: guards, readers and waiters end before the cell; shared values, subscriptions and
//   derived cells may outlive it. A replaced version ends with a write after the last who held it
//   let go, at the latest the 64th, or twice as many as were held; collect() ends it now.
// Guide: docs/snapshot_cell.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "clock.hpp"
#include "detail/config.hpp"
#include "detail/count_mark.hpp"
#include "detail/notifier.hpp"
#include "detail/reader_record.hpp"
#include "detail/snapshot_node.hpp"
#include "detail/snapshot_results.hpp"
#include "detail/snapshot_store.hpp"
#include "detail/sync.hpp"
#include "detail/task.hpp"
#include "reclaim.hpp"
#include "stop_token.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Whether subscribers are spared versions whose value equals the one before. Specialise it to
/// false for a type whose operator== exists but does not compile or is too slow.
template <class T>
inline constexpr bool notify_only_on_change = std::equality_comparable<T>;

/// Keeps a callback registered; its end removes it. reset() ends it early. May outlive the cell.
using snapshot_subscription = detail::subscription;

template <class T>
class derived_cell;

/// I1: versions count from 1, one by one; store_ holds the newest and the kept ones.
/// I2: whoever installs a version then delivers it to the subscribers.
///
/// A write that depends on the version in force (validator, update, publish_if) remembers its base,
/// runs user code with no lock, and installs only if the base is still in force; else it retries.
template <class T>
class snapshot_cell {
  static_assert(std::is_object_v<T> && !std::is_array_v<T>,
                "snapshot_cell<T>: T is an object type");
  static_assert(!std::is_const_v<T> && !std::is_volatile_v<T>,
                "snapshot_cell<T>: leave out const, every reader sees const T anyway");
  static_assert(std::is_nothrow_destructible_v<T>, "snapshot_cell<T>: ~T() must not throw");

 public:
  using value_type = T;
  /// `check(candidate, current)`: the reasons against the candidate, none if it is fine. Called
  /// with no lock held, maybe by several writers at once; again if the current value was replaced.
  using validator = detail::unique_function<std::vector<std::string>(const T&, const T&)>;

  class guard;
  class cached_reader;

  /// Version 1 is `first`; the validator does not see it, as there is nothing in force before.
  explicit snapshot_cell(T first, snapshot_cell_options options = {}, validator check = {})
    requires std::move_constructible<T>
      : snapshot_cell(options, std::move(check), built,
                      [&first]() -> T { return std::move(first); }) {}

  /// Version 1 is T(arguments...), built in place.
  template <class... Arguments>
    requires std::constructible_from<T, Arguments...>
  explicit snapshot_cell(std::in_place_t, Arguments&&... arguments)
      : snapshot_cell({}, {}, std::in_place, std::forward<Arguments>(arguments)...) {}

  template <class... Arguments>
    requires std::constructible_from<T, Arguments...>
  snapshot_cell(snapshot_cell_options options, validator check, std::in_place_t,
                Arguments&&... arguments)
      : snapshot_cell(options, std::move(check), built,
                      [&]() -> T { return T(std::forward<Arguments>(arguments)...); }) {}

  snapshot_cell(const snapshot_cell&) = delete;
  snapshot_cell& operator=(const snapshot_cell&) = delete;
  ~snapshot_cell() {
    VELTRIX_ASSERT(users_.load(detail::sync::relaxed) == 0,
                   "a snapshot_cell ended before a guard, a cached_reader or a waiter of it");
    notifier_->forget();
  }

  // --- reading ---------------------------------------------------------------------------------

  /// The newest version, kept alive and unchanged by the guard. O(1), lock-free: a retry means that
  /// another version was put in force meanwhile. A thread holds four guards, whatever their cells,
  /// for the price of a store each; further ones count on the version itself.
  [[nodiscard]] guard load() const noexcept {
    detail::reader_record& mine = *detail::reader_place::mine().recent;
    const reclaim_domain& domain = store_.domain();
    auto* const in = domain.quick_slot(mine);
    if (in == nullptr) [[unlikely]]
      return guard(*this, store_.show_elsewhere());
    return guard(*this, store_.show(*in, &domain, mine, mine.last));
  }

  /// A handle for hot loops. O(readers); make it once, not for each read. Throws std::bad_alloc.
  [[nodiscard]] cached_reader reader() const { return cached_reader(*this); }

  /// The newest version, shared; it may outlive the cell. O(1), lock-free, throws std::bad_alloc.
  [[nodiscard]] std::shared_ptr<const T> share() const { return store_.hold().share(); }

  /// The number of the version in force; from 1, never falling. As load().
  [[nodiscard]] std::uint64_t version() const noexcept { return load().version(); }

  /// The newest `count` of the kept versions, newest first; the one in force is always kept. O(n).
  [[nodiscard]] std::vector<snapshot_version<T>> history(std::size_t count) const;

  /// Waits until version() >= `version`; looks before it waits. Blocking.
  /// @param deadline  of the steady clock; no_deadline waits for ever
  snapshot_wait_result wait_for(std::uint64_t version, time_point deadline = no_deadline,
                                const stop_token& token = {}) const;

  // --- writing ---------------------------------------------------------------------------------

  /// Puts `value` in force. Result: its version. Throws snapshot_refused if the validator objects:
  /// use try_publish() to be told instead. O(1) and one call of the validator per try.
  std::uint64_t publish(T value)
    requires std::move_constructible<T>
  {
    return accept(box([&value]() -> T { return std::move(value); }), "publish");
  }

  /// As publish(), for T(arguments...) built in place.
  template <class... Arguments>
    requires std::constructible_from<T, Arguments...>
  std::uint64_t emplace(Arguments&&... arguments) {
    return accept(box([&]() -> T { return T(std::forward<Arguments>(arguments)...); }), "emplace");
  }

  /// As publish(), telling a refusal instead of throwing. Result: accepted or refused.
  publish_result try_publish(T value)
    requires std::move_constructible<T>
  {
    return write(box([&value]() -> T { return std::move(value); }));
  }

  /// Puts `value` in force if `expected` is the version in force until then.
  /// Result: accepted, conflict or refused. A value not accepted is gone.
  publish_result publish_if(std::uint64_t expected, T value)
    requires std::move_constructible<T>;

  /// Read-copy-update: puts `change(current)` in force, where `change` takes const T& and returns a
  /// T, or an optional<T> that is empty when there is nothing to change. If another write came
  /// between, calls it again with the newer value, so no update is lost; each retry means that
  /// another write was accepted. `change` must not write to this cell.
  /// Result: accepted, refused or unchanged.
  template <class Change>
    requires std::invocable<Change&, const T&>
  publish_result update(Change change);

  /// Publishes the value of a kept version again, as a new version; the validator is asked.
  /// T is not copied. Result: accepted, refused or not_kept.
  publish_result rollback(std::uint64_t version);

  // --- following -------------------------------------------------------------------------------

  /// Calls `told(const T&, std::uint64_t version)` for the versions after this call whose value
  /// differs from the one before: in order, never two calls at once, with no lock held, in a thread
  /// that writes. A version overtaken while a call runs may be left out, the newest
  /// never is. `told` may use the cell: what it publishes is told after all have heard this one.
  template <class Told>
    requires std::invocable<Told&, const T&, std::uint64_t>
  snapshot_subscription subscribe(Told told) const {
    return follow(std::move(told), std::nullopt);
  }

  /// As subscribe(), for the versions above `seen`: if there is one, `told` hears it before the
  /// return, or from the thread that is telling others now. 0: in any case.
  template <class Told>
    requires std::invocable<Told&, const T&, std::uint64_t>
  snapshot_subscription subscribe_from(std::uint64_t seen, Told told) const {
    auto following = follow(std::move(told), seen);
    deliver();
    return following;
  }

  /// A cell whose value is `compute(value of this)`, computed anew for each version told to
  /// subscribers. It may outlive this cell and keeps its last value then. If `compute` throws, the
  /// derived value stays and the failure is counted; its first call throws to the caller.
  template <class Compute>
    requires std::invocable<Compute&, const T&>
  [[nodiscard]] auto derive(Compute compute) const {
    return derived_cell<std::remove_cvref_t<std::invoke_result_t<Compute&, const T&>>>(
        *this, store_.newest(), std::move(compute));
  }

  [[nodiscard]] snapshot_cell_stats stats() const;

  /// Ends the replaced versions that nobody holds, now instead of at a later write: after many
  /// writes of large values, say, or after a reader that was long at one. O(readers).
  void collect() noexcept { store_.collect(); }

 private:
  template <class>
  friend class derived_cell;
  using counter = detail::sync::atomic<std::size_t>;
  using use_mark = detail::count_mark<counter*>;
  using node = detail::snapshot_node<T>;
  using ref = detail::snapshot_ref<T>;
  using shown = typename detail::snapshot_store<T>::shown;
  struct built_t {};
  static constexpr built_t built{};

  struct same {
    bool operator()(const T& before, const T& now) const {
      if constexpr (notify_only_on_change<T>) {
        return before == now;
      } else {
        return false;
      }
    }
  };

  template <class Make>
  snapshot_cell(snapshot_cell_options options, validator check, built_t, Make make)
      : store_(options.history), validator_(std::move(check)) {
    store_.begin(store_.box(make));
  }

  /// A value made by `make()`, in place, not yet in force.
  template <class Make>
  ref box(Make make) const {
    return store_.box(make);
  }

  /// Who counts users: the destructor's check, so nobody in a release build.
  counter* witness() const noexcept { return VELTRIX_CHECKED ? &users_ : nullptr; }

  std::uint64_t install(ref& value, std::optional<std::uint64_t> expected);
  publish_result try_install(ref& value, guard base);
  publish_result write(ref value);
  std::uint64_t accept(ref value, const char* operation);

  template <class Told>
  snapshot_subscription follow(Told told, std::optional<std::uint64_t> seen) const {
    const std::uint64_t id =
        notifier_->add(std::move(told), seen, [this] { return store_.newest(); });
    return snapshot_subscription(notifier_, id);
  }

  [[gnu::always_inline]] void deliver() const noexcept {
    if (!notifier_->idle()) [[unlikely]]
      deliver_now();
  }
  [[gnu::noinline]] void deliver_now() const noexcept {
    notifier_->deliver([this] { return store_.newest(); });
  }

  detail::snapshot_store<T> store_;
  validator validator_;  // called by several threads at once, changed by none
  const std::shared_ptr<detail::notifier<T, same>> notifier_ =
      std::make_shared<detail::notifier<T, same>>();  // its lock is taken before that of store_
  mutable counter users_{0};                          // relaxed: a check of misuse only
  detail::sync::atomic<std::uint64_t> refused_{0};    // relaxed: statistics only
  detail::sync::atomic<std::uint64_t> conflicts_{0};  // relaxed: statistics only
};

/// Holds one version: it neither changes nor goes while the guard lives. Move it freely, also to
/// another thread; it may wait, or cross a suspension. A reference taken through a guard ends with
/// it.
template <class T>
class snapshot_cell<T>::guard {
 public:
  guard(guard&& other) noexcept
      : used_(std::move(other.used_)),
        shown_(std::exchange(other.shown_, {})),
        value_(std::exchange(other.value_, nullptr)) {}
  guard& operator=(guard&& other) noexcept {
    guard taken(std::move(other));
    std::swap(used_, taken.used_);
    std::swap(shown_, taken.shown_);
    std::swap(value_, taken.value_);
    return *this;
  }
  [[gnu::always_inline]] ~guard() { let_go(); }

  /// Not on a guard that was moved from.
  [[nodiscard]] const T& operator*() const noexcept { return *get(); }
  [[nodiscard]] const T* operator->() const noexcept { return get(); }
  [[nodiscard]] const T* get() const noexcept {
    VELTRIX_ASSERT(value_ != nullptr, "a snapshot_cell guard was used after it was moved");
    return value_;
  }
  /// 0 on a guard that was moved from.
  [[nodiscard]] std::uint64_t version() const noexcept {
    return shown_.what ? shown_.what->version() : 0;
  }

 private:
  friend class snapshot_cell;
  guard(const snapshot_cell& cell, shown version) noexcept
      : used_(cell.witness()), shown_(version), value_(version.what->value()) {}

  [[gnu::always_inline]] void let_go() noexcept {
    if (shown_.in != nullptr) {
      detail::reader_record::clear(*shown_.in, shown_.free);
    } else if (shown_.what != nullptr) {
      node::release(shown_.what);
    }
  }

  use_mark used_;
  shown shown_;
  const T* value_;
};

/// Remembers the version it saw last and asks the cell only for a newer one. One thread at a time.
/// It keeps that version alive: release() it before a long pause.
template <class T>
class snapshot_cell<T>::cached_reader {
 public:
  cached_reader(cached_reader&& other) noexcept
      : cell_(other.cell_),
        domain_(other.domain_),
        record_(std::exchange(other.record_, nullptr)),
        used_(std::move(other.used_)),
        held_(std::exchange(other.held_, nullptr)),
        value_(std::exchange(other.value_, nullptr)),
        last_(other.last_) {}
  cached_reader& operator=(cached_reader&& other) noexcept {
    cached_reader taken(std::move(other));
    std::swap(cell_, taken.cell_);
    std::swap(domain_, taken.domain_);
    std::swap(used_, taken.used_);
    std::swap(record_, taken.record_);
    std::swap(held_, taken.held_);
    std::swap(value_, taken.value_);
    std::swap(last_, taken.last_);
    return *this;
  }
  // Inlined, as is the guard's: a call would take the address and so keep it out of registers.
  [[gnu::always_inline]] ~cached_reader() {
    if (record_ == nullptr) return;
    release();
    record_->give_back();
  }

  /// The newest version: one atomic load and a compare when nothing changed. The reference holds
  /// until the next call of get() or release(); take it once for all fields that belong together.
  /// Lock-free. Not on a reader that was moved from, as load().
  [[nodiscard]] const T& get() noexcept {
    VELTRIX_ASSERT(record_ != nullptr, "a snapshot_cell reader was used after it was moved");
    if (cell_->store_.current() != held_) [[unlikely]]
      keep(cell_->store_.show_anew(record_->shown[0], *record_));
    return *value_;
  }

  /// As the cell's load(), for less: the reader knows where to look. What get() gave stays.
  [[nodiscard]] guard load() noexcept {
    VELTRIX_ASSERT(record_ != nullptr, "a snapshot_cell reader was used after it was moved");
    detail::reader_record::slot& mine = record_->shown[1];
    if (!detail::reader_record::is_quick(mine, domain_)) [[unlikely]]
      return guard(*cell_, cell_->store_.show_elsewhere());
    return guard(*cell_, cell_->store_.show(mine, domain_, *record_, last_));
  }

  /// Of the version that get() returned last; 0 if none is held.
  [[nodiscard]] std::uint64_t version() const noexcept { return held_ ? held_->version() : 0; }

  void release() noexcept {
    held_ = nullptr;
    value_ = nullptr;
    if (record_ == nullptr) return;
    detail::reader_record::clear(record_->shown[0], domain_->free_word());
  }

 private:
  friend class snapshot_cell;
  explicit cached_reader(const snapshot_cell& cell)
      : cell_(&cell),
        domain_(&cell.store_.domain()),
        record_(cell.store_.domain().claim_for_object()),
        used_(cell.witness()) {}

  void keep(node* version) noexcept {
    held_ = version;
    value_ = version->value();
  }

  const snapshot_cell* cell_;
  reclaim_domain* domain_;  // the cell's
  // Its first slot shows held_, the second is for load(). Stands before used_: what may throw
  // comes first, so that nothing needs to be undone and compilers keep the reader in registers.
  detail::reader_record* record_;
  use_mark used_;
  node* held_ = nullptr;
  const T* value_ = nullptr;
  const void* last_ = nullptr;  // what load() found last
};

template <class T>
std::vector<snapshot_version<T>> snapshot_cell<T>::history(std::size_t count) const {
  std::vector<ref> kept = store_.history(count);
  std::vector<snapshot_version<T>> told;
  told.reserve(kept.size());
  for (ref& each : kept) {
    const std::uint64_t version = each.version();
    told.push_back({std::move(each).share(), version});
  }
  return told;
}

template <class T>
snapshot_wait_result snapshot_cell<T>::wait_for(std::uint64_t version, time_point deadline,
                                                const stop_token& token) const {
  const use_mark waiting(witness());
  // woken by install(), after the store has the version; by the token; by the deadline
  const std::uint64_t current = store_.wait_until_version(version, deadline, token);
  if (current >= version) return {snapshot_wait_status::reached, current};
  return {token.stop_requested() ? snapshot_wait_status::stopped : snapshot_wait_status::timed_out,
          current};
}

template <class T>
publish_result snapshot_cell<T>::publish_if(std::uint64_t expected, T value)
  requires std::move_constructible<T>
{
  guard base = load();
  if (base.version() == expected) {
    ref candidate = box([&value]() -> T { return std::move(value); });
    return try_install(candidate, std::move(base));
  }
  conflicts_.fetch_add(1, detail::sync::relaxed);
  return {publish_status::conflict, base.version(), {}};
}

template <class T>
template <class Change>
  requires std::invocable<Change&, const T&>
publish_result snapshot_cell<T>::update(Change change) {
  for (;;) {
    guard base = load();
    ref candidate;
    if constexpr (std::same_as<std::invoke_result_t<Change&, const T&>, std::optional<T>>) {
      std::optional<T> changed = change(*base);
      if (!changed) return {publish_status::unchanged, base.version(), {}};
      candidate = box([&changed]() -> T { return std::move(*changed); });
    } else {
      static_assert(std::is_invocable_r_v<T, Change&, const T&>,
                    "snapshot_cell::update: the function returns T or std::optional<T>");
      candidate = box([&]() -> T { return change(*base); });
    }
    publish_result result = try_install(candidate, std::move(base));
    if (result.status != publish_status::conflict) return result;
  }
}

template <class T>
publish_result snapshot_cell<T>::rollback(std::uint64_t version) {
  const ref kept = store_.find(version);
  if (!kept) return {publish_status::not_kept, this->version(), {}};
  return write(store_.box_again(kept));
}

template <class T>
snapshot_cell_stats snapshot_cell<T>::stats() const {
  snapshot_cell_stats now;
  now.version = version();
  now.published = now.version - 1;
  now.refused = refused_.load(detail::sync::relaxed);
  now.conflicts = conflicts_.load(detail::sync::relaxed);
  now.subscriber_failures = notifier_->failures();
  now.subscribers = notifier_->size();
  now.versions_alive = store_.alive();
  return now;
}

/// Puts `value` in force and tells it. Result: its version, or 0 if `expected` is given and another
/// version is in force.
template <class T>
std::uint64_t snapshot_cell<T>::install(ref& value, std::optional<std::uint64_t> expected) {
  const std::uint64_t version = store_.install(value, expected);
  if (version != 0) deliver();
  return version;
}

/// Puts `value` in force if the validator has no objections and `base` is in force until then.
template <class T>
publish_result snapshot_cell<T>::try_install(ref& value, guard base) {
  const std::uint64_t expected = base.version();
  if (validator_) {
    std::vector<std::string> reasons = validator_(*value.value(), *base);
    if (!reasons.empty()) {
      refused_.fetch_add(1, detail::sync::relaxed);
      return {publish_status::refused, expected, std::move(reasons)};
    }
  }
  { const guard done(std::move(base)); }  // so that the version it holds can end with this write
  const std::uint64_t accepted = install(value, expected);
  if (accepted != 0) return {publish_status::accepted, accepted, {}};
  conflicts_.fetch_add(1, detail::sync::relaxed);
  return {publish_status::conflict, version(), {}};
}

/// Puts `value` in force, whatever is in force before, if the validator has no objections.
template <class T>
publish_result snapshot_cell<T>::write(ref value) {
  if (!validator_) return {publish_status::accepted, install(value, std::nullopt), {}};
  for (;;) {
    publish_result result = try_install(value, load());
    if (result.status != publish_status::conflict) return result;
  }
}

/// write(), with an exception for a refusal.
template <class T>
std::uint64_t snapshot_cell<T>::accept(ref value, const char* operation) {
  if (!validator_) return install(value, std::nullopt);
  publish_result result = write(std::move(value));
  if (!result) detail::raise_refused(std::move(result), operation);
  return result.version;
}

/// What snapshot_cell::derive() returns: a cell that only its source writes. It must not end inside
/// its own function or one of its own subscribers.
template <class T>
class derived_cell : private snapshot_cell<T> {
  using base = snapshot_cell<T>;

 public:
  using typename base::cached_reader;
  using typename base::guard;
  using typename base::value_type;

  using base::collect;
  using base::derive;
  using base::load;
  using base::reader;
  using base::share;
  using base::stats;
  using base::subscribe;
  using base::subscribe_from;
  using base::version;  // its own count, not the source's
  using base::wait_for;

  /// For functions that read any cell.
  [[nodiscard]] const snapshot_cell<T>& as_cell() const noexcept { return *this; }

  /// Calls of the function that threw; each left the value as it was.
  [[nodiscard]] std::uint64_t failures() const noexcept {
    return failures_.load(detail::sync::relaxed);
  }

 private:
  template <class>
  friend class snapshot_cell;

  template <class Source, class Compute>
  derived_cell(const snapshot_cell<Source>& source, const detail::snapshot_ref<Source>& from,
               Compute compute)
      : base({}, {}, base::built, [&]() -> T { return compute(*from.value()); }),
        following_(source.subscribe_from(
            from.version(),
            [this, compute = std::move(compute)](const Source& value, std::uint64_t) mutable {
              recompute([&]() -> T { return compute(value); });
            })) {}

  template <class Make>
  void recompute(Make make) noexcept {
    VELTRIX_TRY {
      static_cast<void>(base::write(base::box(make)));
    }
    VELTRIX_CATCH_ALL {
      failures_.fetch_add(1, detail::sync::relaxed);
    }
  }

  detail::sync::atomic<std::uint64_t> failures_{0};  // relaxed: statistics only
  snapshot_subscription following_;  // last: it calls back into the members above until it ends
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
