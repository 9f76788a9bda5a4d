// A target with mistakes to order, so that a test can see the driver find each of them. Without an
// order, the thing and its model agree. VELTRIX_PLANTED names the mistake:
//   operation  the third erasure in a row leaves its entry
//   fault      an insertion without memory counts all the same
//   time       an entry is served one tick too long
//   crash      a read beyond the end of an array, after four insertions
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string_view>

#include "../driver.hpp"
#include "veltrix/clock.hpp"

namespace veltrix_fuzz {
namespace {

bool planted(std::string_view mistake) {
  const char* const chosen = std::getenv("VELTRIX_PLANTED");
  return chosen != nullptr && mistake == chosen;
}

/// Keeps numbers for five ticks: the thing under test.
class small_store {
 public:
  explicit small_store(veltrix::virtual_clock& clock) : clock_(clock) {}

  void insert(std::size_t key, int value) {
    erased_ = 0;
    if (planted("fault")) ++size_;
    auto made = std::make_unique<int>(value);
    if (!planted("fault") && slots_[key].value == nullptr) ++size_;
    if (planted("fault") && slots_[key].value != nullptr) --size_;
    slots_[key] = {std::move(made), clock_.now() + veltrix::duration(5)};
    if (planted("crash") && ++inserted_ > 3) static_cast<void>(volatile_read(inserted_ + 20));
  }
  void erase(std::size_t key) {
    if (planted("operation") && ++erased_ == 3) return;
    if (slots_[key].value != nullptr) --size_;
    slots_[key] = {};
  }
  std::optional<int> get(std::size_t key) const {
    const slot& at = slots_[key];
    const veltrix::duration late(planted("time") ? 1 : 0);
    if (at.value == nullptr || clock_.now() >= at.until + late) return std::nullopt;
    return *at.value;
  }
  std::size_t size() const { return size_; }

 private:
  struct slot {
    std::unique_ptr<int> value;
    veltrix::time_point until{};
  };
  static int volatile_read(std::size_t at) {
    const std::unique_ptr<volatile int[]> array(new volatile int[4]());
    volatile std::size_t beyond = at % 8 + 4;  // the compiler must not know
    return array[beyond];
  }

  veltrix::virtual_clock& clock_;
  slot slots_[4];
  std::size_t size_ = 0;
  std::size_t inserted_ = 0;
  int erased_ = 0;
};

/// The model: a map of values and ends.
class session {
 public:
  explicit session(byte_source& from) : from_(from), store_(clock_) {}

  void run() {
    while (!from_.empty()) {
      const std::size_t key = from_.below(4);
      switch (from_.below(4)) {
        case 0: insert(key); break;
        case 1:
          trace::add("erase");
          store_.erase(key);
          model_.erase(key);
          break;
        case 2:
          trace::add("advance");
          clock_.advance(veltrix::duration(from_.below(4)));
          break;
        default: get(key); break;
      }
      agree(store_.size(), model_.size(), "size");
    }
  }

 private:
  struct kept {
    int value;
    veltrix::time_point until;
  };

  void insert(std::size_t key) {
    trace::add("insert");
    const int value = from_.byte();
    if (got_through(from_, [&] { store_.insert(key, value); })) {
      model_[key] = {value, clock_.now() + veltrix::duration(5)};
    }
  }
  void get(std::size_t key) {
    trace::add("get");
    const auto at = model_.find(key);
    const bool there = at != model_.end() && clock_.now() < at->second.until;
    const auto got = store_.get(key);
    agree(got.has_value(), there, "whether there is a value");
    if (got) agree(*got, at->second.value, "the value");
  }

  byte_source& from_;
  veltrix::virtual_clock clock_;
  small_store store_;
  std::map<std::size_t, kept> model_;
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
