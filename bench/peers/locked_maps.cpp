// What services write by hand: a standard map under a lock or under 64 of them; and, for one thread
// alone, without any.
// SPDX-License-Identifier: BSL-1.0
#include <array>
#include <cstddef>
#include <functional>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "map_runs.hpp"

namespace veltrix_bench {
namespace {

struct by_nothing {
  static constexpr const char* name = "unlocked std::unordered_map";
  static constexpr std::size_t parts = 1;
  struct mutex {};
  struct read_lock {
    explicit read_lock(mutex& /*of*/) {}
  };
  using write_lock = read_lock;
};

struct by_shared_mutex {
  static constexpr const char* name = "unordered_map + shared_mutex";
  static constexpr std::size_t parts = 1;
  using mutex = std::shared_mutex;
  using read_lock = std::shared_lock<mutex>;
  using write_lock = std::lock_guard<mutex>;
};

struct by_mutexes {
  static constexpr const char* name = "64 x mutex + unordered_map";
  static constexpr std::size_t parts = 64;
  using mutex = std::mutex;
  using read_lock = std::lock_guard<mutex>;
  using write_lock = std::lock_guard<mutex>;
};

/// Hash: std::hash; the part is told by its upper bits once they are spread.
template <class Key, class Value, class By>
class standard_map {
 public:
  static constexpr const char* name = By::name;

  void reserve(std::size_t entries) {
    for (auto& each : parts_)
      each.value.map.reserve(entries / By::parts);
  }
  template <class Use>
  bool visit(const Key& key, Use use) {
    part& in = part_of(key);
    const typename By::read_lock lock(in.mutex);
    const auto found = in.map.find(key);
    if (found == in.map.end()) return false;
    use(found->second);
    return true;
  }
  bool insert(const Key& key, const Value& value) {
    part& in = part_of(key);
    const typename By::write_lock lock(in.mutex);
    return in.map.try_emplace(key, value).second;
  }
  template <class Change>
  void upsert(const Key& key, const Value& value, Change change) {
    part& in = part_of(key);
    const typename By::write_lock lock(in.mutex);
    const auto [at, inserted] = in.map.try_emplace(key, value);
    if (!inserted) change(at->second);
  }
  bool erase(const Key& key) {
    part& in = part_of(key);
    const typename By::write_lock lock(in.mutex);
    return in.map.erase(key) != 0;
  }

 private:
  struct part {
    typename By::mutex mutex;  // guards map
    std::unordered_map<Key, Value> map;
  };

  part& part_of(const Key& key) {
    if constexpr (By::parts == 1) return parts_[0].value;
    const std::size_t spread = std::hash<Key>{}(key) * 0x9e3779b97f4a7c15ULL;
    return parts_[(spread >> 32) % By::parts].value;
  }

  std::array<apart<part>, By::parts> parts_;
};

template <class Key, class Value>
using one_lock = standard_map<Key, Value, by_shared_mutex>;
template <class Key, class Value>
using many_locks = standard_map<Key, Value, by_mutexes>;
template <class Key, class Value>
using no_lock = standard_map<Key, Value, by_nothing>;

}  // namespace

void add_locked_maps(map_contenders& to) {
  add_both<one_lock<number, number>, one_lock<text, payload>>(to);
  add_both<many_locks<number, number>, many_locks<text, payload>>(to);
  add_both<no_lock<number, number>, no_lock<text, payload>>(to, {.shared = false});
}

}  // namespace veltrix_bench
