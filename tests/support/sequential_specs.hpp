// What objects do when they are called one by one: specifications for check_linearizable().
// A specification says what linearizability.hpp asks for; run() is the plain code of the object.
// Give each write a value of its own: a history says more the fewer equal values it has.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

namespace veltrix_test {

namespace lin {

inline std::uint64_t mixed(std::uint64_t a, std::uint64_t b) {
  std::uint64_t hash = (a ^ (b + 0x9e3779b97f4a7c15ULL)) * 0xbf58476d1ce4e5b9ULL;
  return hash ^ (hash >> 31);
}

inline std::uint64_t mixed(const std::optional<std::uint64_t>& value) {
  return value ? mixed(1, *value) : 0;
}

inline std::string text_of(const std::optional<std::uint64_t>& value) {
  return value ? std::to_string(*value) : "none";
}

inline std::string called(const char* name, std::initializer_list<std::uint64_t> arguments) {
  std::string all = name;
  const char* before = "(";
  for (const std::uint64_t each : arguments) {
    all += before + std::to_string(each);
    before = ", ";
  }
  return arguments.size() == 0 ? all + "()" : all + ")";
}

}  // namespace lin

// --- map ----------------------------------------------------------------------------------------

enum class map_call : std::uint8_t {
  get,       ///< shown: the value
  contains,  ///< shown: 1 if present
  insert,    ///< of `value`, if absent; so try_emplace, emplace
  assign,    ///< insert_or_assign of `value`
  erase,
  erase_below,     ///< if the value is below `value`; shown: the value tested
  update,          ///< adds `value` if present; shown: the value before
  upsert,          ///< adds `value` if present, else inserts it; shown: the value before
  compute,         ///< absent: inserts an even `value`, else nothing. Present, shown: erases where
                   ///< the sum with `value` is odd, else puts the sum there
  get_or_emplace,  ///< inserts `value` if absent; shown: the value there in the end
};

enum class map_change : std::uint8_t { unchanged, inserted, replaced, erased };

/// A map of keys to numbers, each key on its own.
struct map_spec {
  struct input {
    map_call call = map_call::get;
    std::uint64_t key = 0;
    std::uint64_t value = 0;
  };
  struct answer {
    map_change done = map_change::unchanged;
    std::optional<std::uint64_t> shown{};
    bool operator==(const answer&) const = default;
  };
  using state = std::optional<std::uint64_t>;

  state first{};  ///< of each key

  [[nodiscard]] state initial() const { return first; }
  [[nodiscard]] std::uint64_t key(const input& in) const { return in.key; }
  [[nodiscard]] bool observes(const input&, const answer& out) const {
    return out.done == map_change::unchanged;
  }
  [[nodiscard]] std::uint64_t hash(const state& at) const { return lin::mixed(at); }

  answer run(state& at, const input& in) const {
    switch (in.call) {
      case map_call::get: return {map_change::unchanged, at};
      case map_call::contains: return {map_change::unchanged, at ? state(1) : state()};
      case map_call::insert: return at ? answer{} : put(at, in.value, {});
      case map_call::assign: return put(at, in.value, {});
      case map_call::erase: return at ? drop(at, {}) : answer{};
      case map_call::erase_below:
        return at && *at < in.value ? drop(at, at) : answer{map_change::unchanged, at};
      case map_call::update: return at ? put(at, *at + in.value, at) : answer{};
      case map_call::upsert: return put(at, at.value_or(0) + in.value, at);
      case map_call::compute: return compute(at, in.value);
      case map_call::get_or_emplace:
        return at ? answer{map_change::unchanged, at} : put(at, in.value, in.value);
    }
    return {};
  }

  [[nodiscard]] std::string text(const input& in) const {
    constexpr const char* names[] = {"get",     "contains",      "insert", "assign",
                                     "erase",   "erase_below",   "update", "upsert",
                                     "compute", "get_or_emplace"};
    const char* const name = names[static_cast<std::size_t>(in.call)];
    const bool key_only = in.call <= map_call::contains || in.call == map_call::erase;
    return key_only ? lin::called(name, {in.key}) : lin::called(name, {in.key, in.value});
  }
  [[nodiscard]] std::string text(const input& in, const answer& out) const {
    constexpr const char* names[] = {"unchanged", "inserted", "replaced", "erased"};
    if (in.call == map_call::get) return lin::text_of(out.shown);
    if (in.call == map_call::contains) return out.shown ? "true" : "false";
    const std::string done = names[static_cast<std::size_t>(out.done)];
    return out.shown ? done + ", shown " + lin::text_of(out.shown) : done;
  }
  [[nodiscard]] std::string text(const state& at) const { return lin::text_of(at); }

 private:
  static answer put(state& at, std::uint64_t value, const state& shown) {
    const answer out{at ? map_change::replaced : map_change::inserted, shown};
    at = value;
    return out;
  }
  static answer drop(state& at, const state& shown) {
    const answer out{map_change::erased, shown};
    at.reset();
    return out;
  }
  static answer compute(state& at, std::uint64_t value) {
    const state before = at;
    if (!at) return value % 2 == 0 ? put(at, value, before) : answer{};
    if ((*at + value) % 2 == 1) return drop(at, before);
    return put(at, *at + value, before);
  }
};

// --- set ----------------------------------------------------------------------------------------

enum class set_call : std::uint8_t { contains, insert, erase };

/// A set of keys, each on its own. The answer: whether it was there, or whether the call changed
/// that.
struct set_spec {
  struct input {
    set_call call = set_call::contains;
    std::uint64_t key = 0;
  };
  using answer = bool;
  using state = bool;

  [[nodiscard]] state initial() const { return false; }
  [[nodiscard]] std::uint64_t key(const input& in) const { return in.key; }
  [[nodiscard]] bool observes(const input& in, const answer& out) const {
    return in.call == set_call::contains || !out;
  }
  [[nodiscard]] std::uint64_t hash(const state& at) const { return at ? 1 : 0; }
  answer run(state& at, const input& in) const {
    if (in.call == set_call::contains) return at;
    const bool wanted = in.call == set_call::insert;
    const bool changes = at != wanted;
    at = wanted;
    return changes;
  }

  [[nodiscard]] std::string text(const input& in) const {
    constexpr const char* names[] = {"contains", "insert", "erase"};
    return lin::called(names[static_cast<std::size_t>(in.call)], {in.key});
  }
  [[nodiscard]] std::string text(const input&, const answer& out) const {
    return out ? "true" : "false";
  }
  [[nodiscard]] std::string text(const state& at) const { return at ? "present" : "absent"; }
};

// --- register -----------------------------------------------------------------------------------

enum class register_call : std::uint8_t { read, write, compare_exchange };

/// Registers by key, 0 at first. shown: what a read or a compare-exchange saw.
struct register_spec {
  struct input {
    register_call call = register_call::read;
    std::uint64_t key = 0;
    std::uint64_t value = 0;     ///< to write
    std::uint64_t expected = 0;  ///< by compare_exchange
  };
  struct answer {
    bool written = false;
    std::uint64_t shown = 0;
    bool operator==(const answer&) const = default;
  };
  using state = std::uint64_t;

  [[nodiscard]] state initial() const { return 0; }
  [[nodiscard]] std::uint64_t key(const input& in) const { return in.key; }
  [[nodiscard]] bool observes(const input&, const answer& out) const { return !out.written; }
  [[nodiscard]] std::uint64_t hash(const state& at) const { return lin::mixed(0, at); }
  answer run(state& at, const input& in) const {
    const state before = at;
    if (in.call == register_call::read) return {false, before};
    if (in.call == register_call::compare_exchange && before != in.expected) return {false, before};
    at = in.value;
    return {true, in.call == register_call::write ? 0 : before};
  }

  [[nodiscard]] std::string text(const input& in) const {
    if (in.call == register_call::read) return lin::called("read", {in.key});
    if (in.call == register_call::write) return lin::called("write", {in.key, in.value});
    return lin::called("compare_exchange", {in.key, in.expected, in.value});
  }
  [[nodiscard]] std::string text(const input& in, const answer& out) const {
    if (in.call == register_call::write) return "done";
    const std::string saw = std::to_string(out.shown);
    if (in.call == register_call::read) return saw;
    return (out.written ? "exchanged, saw " : "failed, saw ") + saw;
  }
  [[nodiscard]] std::string text(const state& at) const { return std::to_string(at); }
};

// --- counter ------------------------------------------------------------------------------------

enum class counter_call : std::uint8_t {
  read,
  add,        ///< tells nothing
  fetch_add,  ///< tells the value before
};

struct counter_spec {
  struct input {
    counter_call call = counter_call::read;
    std::uint64_t amount = 0;
  };
  using answer = std::uint64_t;  ///< 0 of add
  using state = std::uint64_t;

  [[nodiscard]] state initial() const { return 0; }
  [[nodiscard]] bool observes(const input& in, const answer&) const {
    return in.call == counter_call::read || in.amount == 0;
  }
  [[nodiscard]] std::uint64_t hash(const state& at) const { return lin::mixed(0, at); }
  answer run(state& at, const input& in) const {
    const state before = at;
    if (in.call != counter_call::read) at += in.amount;
    return in.call == counter_call::add ? 0 : before;
  }

  [[nodiscard]] std::string text(const input& in) const {
    if (in.call == counter_call::read) return "read()";
    return lin::called(in.call == counter_call::add ? "add" : "fetch_add", {in.amount});
  }
  [[nodiscard]] std::string text(const input& in, const answer& out) const {
    return in.call == counter_call::add ? "done" : std::to_string(out);
  }
  [[nodiscard]] std::string text(const state& at) const { return std::to_string(at); }
};

// --- queue --------------------------------------------------------------------------------------

enum class queue_call : std::uint8_t { push, pop, size, close };

enum class queue_status : std::uint8_t {
  done,
  full,     ///< push: no room
  empty,    ///< pop: nothing inside
  closed,   ///< push: closed; pop: closed and nothing inside
  refused,  ///< push: turned away for a reason that is not in the state; always right
};

enum class when_full : std::uint8_t { refuse, drop_oldest };

/// First in, first out, with a bound; no more than Room items.
template <std::size_t Room = 16>
struct queue_spec {
  struct input {
    queue_call call = queue_call::pop;
    std::uint64_t value = 0;
  };
  struct answer {
    queue_status status = queue_status::done;
    std::uint64_t value = 0;  ///< popped; the size; 1 if a push dropped the oldest
    bool operator==(const answer&) const = default;
  };
  struct state {
    std::array<std::uint64_t, Room> items{};  // oldest first; 0 behind the last
    std::size_t size = 0;
    bool closed = false;
    bool operator==(const state&) const = default;
  };

  std::size_t capacity = Room;  ///< 1 to Room
  when_full policy = when_full::refuse;

  [[nodiscard]] state initial() const {
    if (capacity == 0 || capacity > Room) throw std::invalid_argument("queue_spec: 1 to Room");
    return {};
  }
  [[nodiscard]] bool observes(const input& in, const answer& out) const {
    return in.call == queue_call::size || out.status != queue_status::done;
  }
  [[nodiscard]] std::uint64_t hash(const state& at) const {
    std::uint64_t hash = at.size * 2 + (at.closed ? 1 : 0);
    for (std::size_t i = 0; i < at.size; ++i)
      hash = lin::mixed(hash, at.items[i]);
    return hash;
  }
  answer run(state& at, const input& in) const {
    switch (in.call) {
      case queue_call::push: return push(at, in.value);
      case queue_call::pop: return pop(at);
      case queue_call::size: return {queue_status::done, at.size};
      case queue_call::close: at.closed = true; return {};
    }
    return {};
  }
  bool accepts(state& at, const input& in, const answer& out) const {
    return out.status == queue_status::refused || run(at, in) == out;
  }

  [[nodiscard]] std::string text(const input& in) const {
    constexpr const char* names[] = {"push", "pop", "size", "close"};
    const char* const name = names[static_cast<std::size_t>(in.call)];
    return in.call == queue_call::push ? lin::called(name, {in.value}) : lin::called(name, {});
  }
  [[nodiscard]] std::string text(const input& in, const answer& out) const {
    constexpr const char* names[] = {"done", "full", "empty", "closed", "refused"};
    const std::string status = names[static_cast<std::size_t>(out.status)];
    if (out.status != queue_status::done || in.call == queue_call::close) return status;
    if (in.call == queue_call::push) return out.value == 0 ? status : "done, dropped the oldest";
    return std::to_string(out.value);
  }
  [[nodiscard]] std::string text(const state& at) const {
    std::string all = at.closed ? "closed [" : "[";
    for (std::size_t i = 0; i < at.size; ++i)
      all += (i == 0 ? "" : " ") + std::to_string(at.items[i]);
    return all + "]";
  }

 private:
  static std::uint64_t take(state& at) {
    const std::uint64_t oldest = at.items[0];
    for (std::size_t i = 1; i < at.size; ++i)
      at.items[i - 1] = at.items[i];
    at.items[--at.size] = 0;
    return oldest;
  }
  answer push(state& at, std::uint64_t value) const {
    if (at.closed) return {queue_status::closed, 0};
    const bool is_full = at.size == capacity;
    if (is_full && policy == when_full::refuse) return {queue_status::full, 0};
    if (is_full) static_cast<void>(take(at));
    at.items[at.size++] = value;
    return {queue_status::done, is_full ? std::uint64_t{1} : std::uint64_t{0}};
  }
  static answer pop(state& at) {
    if (at.size == 0) return {at.closed ? queue_status::closed : queue_status::empty, 0};
    return {queue_status::done, take(at)};
  }
};

// --- versioned cell -----------------------------------------------------------------------------

enum class cell_call : std::uint8_t {
  load,        ///< version and value
  version,     ///< the version alone
  previous,    ///< the version, and the value before the newest
  publish,     ///< of `value`
  publish_if,  ///< of `value`, if version `expected` is in force
  update,      ///< adds `value`; shown: the value before
  rollback,    ///< publishes the value of version `expected` again; every version is kept
};

/// A cell whose versions count from 1, for histories of fewer than Room writes.
template <std::size_t Room = 64>
struct cell_spec {
  struct input {
    cell_call call = cell_call::load;
    std::uint64_t value = 0;
    std::uint64_t expected = 0;
  };
  struct answer {
    bool accepted = false;  ///< of a write
    std::uint64_t version = 0;
    std::uint64_t value = 0;
    bool operator==(const answer&) const = default;
  };
  struct state {
    std::array<std::uint64_t, Room> values{};  // of version i + 1
    std::size_t version = 1;
    bool operator==(const state&) const = default;
  };

  std::uint64_t first = 0;  ///< the value of version 1

  [[nodiscard]] state initial() const {
    state at;
    at.values[0] = first;
    return at;
  }
  [[nodiscard]] bool observes(const input&, const answer& out) const { return !out.accepted; }
  [[nodiscard]] std::uint64_t hash(const state& at) const {
    std::uint64_t hash = at.version;
    for (std::size_t i = 0; i < at.version; ++i)
      hash = lin::mixed(hash, at.values[i]);
    return hash;
  }
  answer run(state& at, const input& in) const {
    const std::uint64_t newest = at.values[at.version - 1];
    switch (in.call) {
      case cell_call::load: return {false, at.version, newest};
      case cell_call::version: return {false, at.version, 0};
      case cell_call::previous:
        return {false, at.version, at.version < 2 ? 0 : at.values[at.version - 2]};
      case cell_call::publish: return write(at, in.value, 0);
      case cell_call::publish_if:
        return in.expected == at.version ? write(at, in.value, 0) : answer{false, at.version, 0};
      case cell_call::update: return write(at, newest + in.value, newest);
      case cell_call::rollback:
        if (in.expected == 0 || in.expected > at.version) return {false, at.version, 0};
        return write(at, at.values[static_cast<std::size_t>(in.expected) - 1], 0);
    }
    return {};
  }

  [[nodiscard]] std::string text(const input& in) const {
    constexpr const char* names[] = {"load",       "version", "previous", "publish",
                                     "publish_if", "update",  "rollback"};
    const char* const name = names[static_cast<std::size_t>(in.call)];
    if (in.call < cell_call::publish) return lin::called(name, {});
    if (in.call == cell_call::publish_if) return lin::called(name, {in.expected, in.value});
    return lin::called(name, {in.call == cell_call::rollback ? in.expected : in.value});
  }
  [[nodiscard]] std::string text(const input& in, const answer& out) const {
    std::string all = in.call < cell_call::publish ? "version " : "refused at version ";
    if (out.accepted) all = "accepted as version ";
    all += std::to_string(out.version);
    const bool has_value = in.call == cell_call::load || in.call == cell_call::previous ||
                           in.call == cell_call::update;
    return has_value ? all + ", value " + std::to_string(out.value) : all;
  }
  [[nodiscard]] std::string text(const state& at) const {
    return "version " + std::to_string(at.version) + " of value " +
           std::to_string(at.values[at.version - 1]);
  }

 private:
  static answer write(state& at, std::uint64_t value, std::uint64_t shown) {
    if (at.version == Room) throw std::length_error("cell_spec: more versions than Room");
    at.values[at.version++] = value;
    return {true, at.version, shown};
  }
};

// --- cache --------------------------------------------------------------------------------------

enum class cache_call : std::uint8_t {
  get,         ///< also get_or_load where it was a hit: the value, or none
  put,         ///< of `value`; ends the load under way
  invalidate,  ///< whether an entry was there
  drop,        ///< invalidate_all, which tells nothing
  begin_load,  ///< get_or_load found nothing, and its thread loads: load number `value`
  land,        ///< the end of load number `value`, which brought `brought`
  join,        ///< get_or_load waits for load number `value`
};

enum class cache_bound : std::uint8_t {
  never_evicts,
  may_evict,  ///< an entry may be gone at any time, unasked
};

/// A cache that loads, each key on its own. A get_or_load is two calls in its history: begin_load
/// until the loader runs, land from the loader's end; or join; or get, a hit. Load numbers count
/// from 1. One load per key counts at a time; what a put or an invalidation overtook still answers
/// those who joined it, but is not stored, and nobody joins it any more.
///
/// An eviction needs no moment of its own: it is enough that a call which finds nothing may have
/// found an entry just evicted.
struct cache_spec {
  struct input {
    cache_call call = cache_call::get;
    std::uint64_t key = 0;
    std::uint64_t value = 0;
    std::optional<std::uint64_t> brought{};  ///< none: the load failed, or there is no such key
  };
  struct answer {
    bool done = false;  ///< put: stored; invalidate: was there; begin_load, join: it was right to
    std::optional<std::uint64_t> shown{};
    bool operator==(const answer&) const = default;
  };
  struct state {
    std::optional<std::uint64_t> entry{};
    std::uint64_t load = 0;  // under way and current; 0: none
    bool operator==(const state&) const = default;
  };

  cache_bound bound = cache_bound::never_evicts;

  [[nodiscard]] state initial() const { return {}; }
  [[nodiscard]] std::uint64_t key(const input& in) const { return in.key; }
  [[nodiscard]] bool observes(const input& in, const answer& out) const {
    return in.call == cache_call::join ||
           (in.call == cache_call::get && (out.shown || bound == cache_bound::never_evicts));
  }
  [[nodiscard]] std::uint64_t hash(const state& at) const {
    return lin::mixed(at.load, lin::mixed(at.entry));
  }
  answer run(state& at, const input& in) const {
    switch (in.call) {
      case cache_call::get: return {false, at.entry};
      case cache_call::put: at = {in.value, 0}; return {true, {}};
      case cache_call::invalidate: return {clear(at), {}};
      case cache_call::drop: clear(at); return {};
      case cache_call::begin_load: return {begin(at, in.value), {}};
      case cache_call::land: land(at, in); return {};
      case cache_call::join: return {at.load == in.value, {}};
    }
    return {};
  }
  bool accepts(state& at, const input& in, const answer& out) const {
    const bool found_nothing = in.call == cache_call::begin_load ||
                               (in.call == cache_call::get && !out.shown) ||
                               (in.call == cache_call::invalidate && !out.done);
    if (found_nothing && bound == cache_bound::may_evict) at.entry.reset();
    return run(at, in) == out;
  }

  [[nodiscard]] std::string text(const input& in) const {
    constexpr const char* names[] = {"get",        "put",  "invalidate", "invalidate_all",
                                     "begin_load", "land", "join"};
    const char* const name = names[static_cast<std::size_t>(in.call)];
    const bool has_value = in.call == cache_call::put || in.call >= cache_call::begin_load;
    std::string all =
        has_value ? lin::called(name, {in.key, in.value}) : lin::called(name, {in.key});
    return in.call == cache_call::land ? all + " with " + lin::text_of(in.brought) : all;
  }
  [[nodiscard]] std::string text(const input& in, const answer& out) const {
    if (in.call == cache_call::get) return lin::text_of(out.shown);
    if (in.call == cache_call::drop || in.call == cache_call::land) return "done";
    return out.done ? "true" : "false";
  }
  [[nodiscard]] std::string text(const state& at) const {
    const std::string entry = lin::text_of(at.entry);
    return at.load == 0 ? entry : entry + ", load " + std::to_string(at.load) + " under way";
  }

 private:
  static bool clear(state& at) {
    const bool was_there = at.entry.has_value();
    at = {};
    return was_there;
  }
  static bool begin(state& at, std::uint64_t number) {
    if (at.entry || at.load != 0) return false;
    at.load = number;
    return true;
  }
  static void land(state& at, const input& in) {
    if (at.load != in.value) return;
    at = {in.brought, 0};
  }
};

}  // namespace veltrix_test
