// concurrent_map beside other concurrent maps, a locked standard map, and maps without any lock.
// Every contender gets the same keys in the same order, drawn before anything is timed. Keys are
// spread over all 64 bits, or texts of 16 to 40 characters; each contender hashes them its own way,
// which is told where it is defined.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "concurrent_maps.hpp"
#include "harness.hpp"
#include "map_keys.hpp"

namespace {

using namespace veltrix_bench;

constexpr std::array<unsigned, 3> crews{1, 2, 4};
constexpr std::array<unsigned, 2> growing_crews{1, 2};  // a run takes long
constexpr std::size_t most_threads = 4;
constexpr double zipf_exponent = 0.99;
constexpr unsigned steady_rounds = 21;  // at most: there are many contenders
constexpr unsigned growth_rounds = 5;
constexpr std::uint64_t few_operations = 2'048;  // take far less than a run

// --- keys ----------------------------------------------------------------------------------------

/// Draws ranks below `count`, each in proportion to 1 / (rank + 1) ^ zipf_exponent.
class zipf_ranks {
 public:
  explicit zipf_ranks(std::size_t count) : up_to_(count) {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i)
      up_to_[i] = sum += 1 / std::pow(static_cast<double>(i + 1), zipf_exponent);
  }
  template <class Random>
  std::size_t operator()(Random& random) const {
    std::uniform_real_distribution<double> draw(0, up_to_.back());
    const auto at = std::upper_bound(up_to_.begin(), up_to_.end(), draw(random));
    return std::min<std::size_t>(static_cast<std::size_t>(at - up_to_.begin()), up_to_.size() - 1);
  }

 private:
  std::vector<double> up_to_;  // sums of the weights
};

/// The keys of a map and the orders in which they are asked for; each order is a ring.
template <class Key>
struct key_sets {
  key_sets(std::size_t count, std::size_t ring) : present(count) {
    std::mt19937_64 random(count);
    std::vector<std::uint64_t> by_rank(count);  // the popular ones are spread over the whole map
    std::iota(by_rank.begin(), by_rank.end(), std::uint64_t{0});
    for (std::size_t i = 0; i < count; ++i)
      present[i] = key_of<Key>(i);
    std::shuffle(by_rank.begin(), by_rank.end(), random);
    const zipf_ranks ranks(count);
    for (std::size_t i = 0; i < ring; ++i) {
      uniform.push_back(key_of<Key>(random() % count));
      zipf.push_back(key_of<Key>(by_rank[ranks(random)]));
      absent.push_back(key_of<Key>(absent_from + random() % count));
    }
    hot.push_back(present[by_rank[0]]);
  }

  static constexpr std::uint64_t absent_from = std::uint64_t{1} << 40;

  std::vector<Key> present;
  std::vector<Key> uniform;
  std::vector<Key> zipf;
  std::vector<Key> absent;
  std::vector<Key> hot;  // one
};

/// For churn: each thread has a ring of keys, a window of which is in the map.
template <class Key>
struct churn_rings {
  churn_rings(std::size_t count) : alive(count / most_threads) {
    std::size_t size = 1;
    while (size < 2 * alive)
      size *= 2;
    std::uint64_t next = 0;
    for (auto& each : rings) {
      for (std::size_t i = 0; i < size; ++i)
        each.push_back(key_of<Key>(next++));
    }
  }

  std::size_t alive;  // of each ring
  std::array<std::vector<Key>, most_threads> rings;
};

// --- contenders ----------------------------------------------------------------------------------

/// What a thread does with a map.
template <class Key, class Value>
struct task {
  using map_type = measured_map<Key, Value>;
  using operations = std::uint64_t;
  std::string name;
  std::vector<Key> key_sets<Key>::* ring;  ///< of keys; null if the task has rings of its own
  std::function<std::uint64_t(map_type&, key_walk<Key>&, operations)> run;
  std::function<std::uint64_t(operations)> expected;  ///< what `run` returns for so many
  bool in_batches = false;
};

/// Look-ups and changes of entries that stay.
template <class Key, class Value>
std::vector<task<Key, Value>> steady_tasks() {
  using made = task<Key, Value>;
  using map_type = typename made::map_type;
  using keys = key_sets<Key>;
  const auto find = [](map_type& map, key_walk<Key>& walk, std::uint64_t operations) {
    return map.find(walk, operations);
  };
  const auto all = [](std::uint64_t operations) { return operations; };
  const auto none = [](std::uint64_t) { return std::uint64_t{0}; };
  const auto find_batches = [](map_type& map, key_walk<Key>& walk, std::uint64_t operations) {
    return map.find_batches(walk, operations);
  };
  const auto whole_batches = [](std::uint64_t operations) {
    return (operations + keys_in_a_batch - 1) / keys_in_a_batch * keys_in_a_batch;
  };
  const auto mixed = [](std::string name, std::vector<Key> keys::* ring, unsigned one_of) {
    return made{std::move(name), ring,
                [one_of](map_type& map, key_walk<Key>& walk, std::uint64_t operations) {
                  return map.mix(walk, one_of, operations);
                },
                [one_of](std::uint64_t operations) {
                  return operations - (operations + one_of - 1) / one_of;
                }};
  };
  return {made{"hit uniform", &keys::uniform, find, all},
          made{"hit zipf", &keys::zipf, find, all},
          made{"hit one hot key", &keys::hot, find, all},
          made{"miss", &keys::absent, find, none},
          made{"hit in batches of 256", &keys::uniform, find_batches, whole_batches, true},
          mixed("95/5 uniform", &keys::uniform, 20),
          mixed("95/5 zipf", &keys::zipf, 20),
          mixed("50/50 uniform", &keys::uniform, 2),
          mixed("50/50 zipf", &keys::zipf, 2)};
}

template <class Key, class Value>
class map_bench {
  using contender_type = map_contender<Key, Value>;
  using map_type = measured_map<Key, Value>;
  using task_type = task<Key, Value>;
  using walks = std::array<apart<key_walk<Key>>, most_threads>;

 public:
  /// `told` comes first in the names of the workloads.
  map_bench(bench& table, std::string told, std::size_t count, std::size_t ring,
            const std::vector<contender_type>& sides)
      : table_(table),
        told_(std::move(told)),
        count_(table.chosen().quick ? std::min<std::size_t>(count, 4'096) : count),
        ring_(table.chosen().quick ? 1'024 : ring),
        warm_up_(table.chosen().quick ? 0 : std::min<std::size_t>(count, 50'000)) {
    for (const contender_type& each : sides) {
      if (each.name == sides.front().name || table.chosen().wants_contender(each.name)) {
        sides_.push_back(each);
      }
    }
  }

  void run_steady(const std::vector<std::string>& wanted) {
    std::vector<task_type> tasks = steady_tasks<Key, Value>();
    std::erase_if(tasks, [&](const task_type& each) {
      return std::find(wanted.begin(), wanted.end(), each.name) == wanted.end() || !wants(each);
    });
    if (tasks.empty()) return;
    const key_sets<Key> keys(count_, ring_);
    const auto maps =
        make_maps([&](map_type& map) { return map.insert(keys.present.data(), count_) == count_; });
    for (const task_type& each : tasks) {
      run_crews(each, maps, [&](std::size_t) {
        const std::vector<Key>& ring = keys.*each.ring;
        auto places = std::make_shared<walks>();
        for (std::size_t t = 0; t < most_threads; ++t)
          (*places)[t].value = {ring.data(), ring.size() - 1, t * (ring.size() / most_threads)};
        return places;
      });
    }
  }

  /// Entries come and go; their number stays.
  void run_churn() {
    task_type churn{"churn", nullptr, nullptr, [](std::uint64_t operations) { return operations; }};
    if (!wants(churn)) return;
    const churn_rings<Key> rings(count_);
    churn.run = [&](map_type& map, key_walk<Key>& walk, std::uint64_t operations) {
      return map.churn(walk, rings.alive, operations);
    };
    const auto maps = make_maps([&](map_type& map) {
      std::uint64_t inserted = 0;
      for (const std::vector<Key>& each : rings.rings)
        inserted += map.insert(each.data(), rings.alive);
      return inserted == most_threads * rings.alive;
    });
    std::vector<std::shared_ptr<walks>> places;  // of each map: they tell what is in it
    for (std::size_t i = 0; i < sides_.size(); ++i) {
      places.push_back(std::make_shared<walks>());
      for (std::size_t t = 0; t < most_threads; ++t)
        (*places[i])[t].value = {rings.rings[t].data(), rings.rings[t].size() - 1, 0};
    }
    run_crews(churn, maps, [&](std::size_t side) { return places[side]; });
  }

  /// From nothing to all keys, shared out among the threads.
  void run_growth(bool reserved) {
    const task_type growing{reserved ? "insert reserved" : "insert growing", nullptr, nullptr, {}};
    if (!wants(growing)) return;
    std::vector<Key> keys(count_);
    for (std::size_t i = 0; i < count_; ++i)
      keys[i] = key_of<Key>(i);
    std::vector<workload> together;
    for (const unsigned threads : growing_crews) {
      workload made{told_ + growing.name, threads, {}};
      made.operations = count_ / threads;
      made.most_rounds = growth_rounds;
      for (const contender_type& each : sides_) {
        if (takes_part(each, growing, threads)) made.sides.push_back(grower(each, keys, reserved));
      }
      together.push_back(std::move(made));
    }
    table_.run(std::move(together));
  }

 private:
  [[nodiscard]] bool wants(const task_type& what) const {
    return table_.chosen().wants(told_ + what.name);
  }

  static bool takes_part(const contender_type& side, const task_type& in, unsigned threads) {
    if (threads > 1 && !side.part.shared) return false;
    if (in.in_batches) return side.batches && side.part.only.empty();
    return in.name.find(side.part.only) != std::string::npos;
  }

  /// A contender that found too little or too much is no contender.
  void require(bool right, const std::string& what, const std::string& side) const {
    if (right) return;
    std::fprintf(stderr, "concurrent_map_bench: %s%s: %s gave wrong answers\n", told_.c_str(),
                 what.c_str(), side.c_str());
    std::exit(1);
  }

  template <class Fill>
  std::vector<std::unique_ptr<map_type>> make_maps(Fill fill) {
    std::vector<std::unique_ptr<map_type>> maps;
    for (const contender_type& each : sides_) {
      table_.tell(told_ + "filling " + each.name);
      maps.push_back(each.make());
      require(fill(*maps.back()), "filling", each.name);
    }
    return maps;
  }

  /// `places_of(side)` gives where its threads stand in their rings.
  template <class Places>
  void run_crews(const task_type& what, const std::vector<std::unique_ptr<map_type>>& maps,
                 Places places_of) {
    std::vector<workload> together;
    for (const unsigned threads : crews) {
      workload made{told_ + what.name, threads, {}};
      made.most_rounds = steady_rounds;
      made.few = few_operations;
      for (std::size_t i = 0; i < sides_.size(); ++i) {
        if (!takes_part(sides_[i], what, threads)) continue;
        made.sides.push_back(worker(sides_[i].name, *maps[i], what, places_of(i)));
      }
      together.push_back(std::move(made));
    }
    table_.run(std::move(together));
  }

  contender worker(const std::string& name, map_type& map, const task_type& what,
                   std::shared_ptr<walks> places) const {
    contender made;
    made.name = name;
    made.enter = [this, name, &map, what, places = std::move(places)](unsigned thread) {
      const auto checked = [this, name, &map, what, places, thread](std::uint64_t operations) {
        const std::uint64_t answered = what.run(map, (*places)[thread].value, operations);
        require(answered == what.expected(operations), what.name, name);
      };
      checked(warm_up_);  // another contender had the cache
      return checked;
    };
    return made;
  }

  contender grower(const contender_type& of, const std::vector<Key>& keys, bool reserved) const {
    const auto map = std::make_shared<std::unique_ptr<map_type>>();
    contender made;
    made.name = of.name;
    made.before = [this, map, make = of.make, reserved] {
      *map = make();
      if (reserved) (*map)->reserve(count_);
    };
    made.body = [this, map, &keys, name = of.name](unsigned thread, std::uint64_t operations) {
      const Key* const first = keys.data() + thread * operations;
      require((*map)->insert(first, operations) == operations, "insert", name);
    };
    made.after = [map] { map->reset(); };
    return made;
  }

  bench& table_;
  const std::string told_;
  const std::size_t count_;
  const std::size_t ring_;
  const std::size_t warm_up_;
  std::vector<contender_type> sides_;
};

const std::vector<std::string> every_steady_task{
    "hit uniform",  "hit zipf",  "hit one hot key", "miss",      "hit in batches of 256",
    "95/5 uniform", "95/5 zipf", "50/50 uniform",   "50/50 zipf"};

}  // namespace

int main(int argc, char** argv) {
  bench table("concurrent_map", parse(argc, argv));
  const map_contenders all =
      map_contenders_here([&](const char* side, const char* why) { table.absent(side, why); });
  constexpr std::size_t million = 1'000'000;
  // Small maps first: from a heap that large ones have left in pieces, each of their entries would
  // come on a page of its own, and they would be in no cache.
  {
    map_bench small(table, "10 K text: ", 10'000, std::size_t{1} << 14, all.texts);
    small.run_steady({"hit uniform", "95/5 uniform", "hit one hot key"});
  }
  {
    map_bench small(table, "10 K u64: ", 10'000, std::size_t{1} << 16, all.numbers);
    small.run_steady(every_steady_task);
    small.run_churn();
  }
  {
    map_bench large(table, "1 M u64: ", million, std::size_t{1} << 21, all.numbers);
    large.run_steady(every_steady_task);
    large.run_churn();
    large.run_growth(false);
    large.run_growth(true);
  }
  {
    map_bench large(table, "1 M text: ", million, std::size_t{1} << 19, all.texts);
    large.run_steady({"hit uniform", "hit zipf", "95/5 uniform", "50/50 uniform"});
    large.run_growth(false);
  }
  run_large_maps(table, all.numbers);
  return table.finish();
}
