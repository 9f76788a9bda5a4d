// gtl::parallel_flat_hash_map in 256 parts, under spin locks and under std::shared_mutex; and
// gtl::flat_hash_map without any lock as a floor for one thread.
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <cstddef>
#include <functional>
#include <gtl/phmap.hpp>
#include <memory>
#include <shared_mutex>
#include <thread>
#include <utility>
#include <vector>

#include "map_runs.hpp"
#include "peers/unlocked_map.hpp"

namespace veltrix_bench {
namespace {

/// gtl brings none. Waits by reading; gives the core away when it has to wait long.
class spin_lock {
 public:
  void lock() {
    while (taken_.exchange(true, std::memory_order_acquire)) {
      for (unsigned turns = 0; taken_.load(std::memory_order_relaxed); ++turns) {
        if (turns > 100) std::this_thread::yield();
      }
    }
  }
  bool try_lock() { return !taken_.exchange(true, std::memory_order_acquire); }
  void unlock() { taken_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> taken_{false};
};

struct by_spin_locks {
  static constexpr const char* name = "gtl spin x256";
  using mutex = spin_lock;
};

struct by_shared_mutexes {
  static constexpr const char* name = "gtl rw x256";
  using mutex = std::shared_mutex;
};

/// Hash: the default gtl::Hash, which mixes numbers by a multiplication.
template <class Key, class Value, class By>
class parallel_map {
  static constexpr std::size_t log2_of_parts = 8;

 public:
  static constexpr const char* name = By::name;

  void reserve(std::size_t entries) { map_.reserve(entries); }
  template <class Use>
  bool visit(const Key& key, Use use) const {
    return map_.if_contains(key, [&](const auto& entry) { use(entry.second); });
  }
  bool insert(const Key& key, const Value& value) {
    return map_.lazy_emplace_l(key, [](auto&) {}, [&](const auto& make) { make(key, value); });
  }
  template <class Change>
  void upsert(const Key& key, const Value& value, Change change) {
    map_.lazy_emplace_l(
        key, [&](auto& entry) { change(entry.second); },
        [&](const auto& make) { make(key, value); });
  }
  bool erase(const Key& key) { return map_.erase(key) != 0; }
  std::size_t snapshot() const {
    std::vector<std::pair<Key, Value>> copies;
    copies.reserve(map_.size());
    map_.for_each([&](const auto& entry) { copies.emplace_back(entry.first, entry.second); });
    return copies.size();
  }

 private:
  gtl::parallel_flat_hash_map<
      Key, Value, gtl::priv::hash_default_hash<Key>, gtl::priv::hash_default_eq<Key>,
      std::allocator<std::pair<const Key, Value>>, log2_of_parts, typename By::mutex>
      map_;
};

template <class Key, class Value>
using spinning = parallel_map<Key, Value, by_spin_locks>;
template <class Key, class Value>
using shared = parallel_map<Key, Value, by_shared_mutexes>;

/// Hash: as above.
template <class Key, class Value>
struct gtl_flat_map : unlocked_map<gtl::flat_hash_map<Key, Value>> {
  static constexpr const char* name = "unlocked gtl flat_hash_map";
};

}  // namespace

void add_gtl_maps(map_contenders& to) {
  add_both<spinning<number, number>, spinning<text, payload>>(to, {.large = true});
  add_both<shared<number, number>, shared<text, payload>>(to);
  add_both<gtl_flat_map<number, number>, gtl_flat_map<text, payload>>(to, {.shared = false});
}

}  // namespace veltrix_bench
