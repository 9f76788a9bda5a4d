// detail::unique_function: construction, moves, calls and ends in any order, captures of all kinds.
// Model: per slot, which capture it holds, and how many captures are alive.
// SPDX-License-Identifier: BSL-1.0
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "driver.hpp"
#include "veltrix/detail/task.hpp"

namespace veltrix_fuzz {
namespace {

using function = veltrix::detail::unique_function<int(int)>;
using veltrix_test::faults;

int alive = 0;

/// A capture of `Bytes`: small ones live inside the function, large ones outside.
template <std::size_t Bytes>
struct capture {
  explicit capture(int number) : id(number) { ++alive; }
  capture(capture&& other) noexcept : id(other.id), calls(other.calls) { ++alive; }
  capture& operator=(capture&&) = delete;
  ~capture() { --alive; }
  int operator()(int add) {
    faults::point();
    return id + add + calls++;
  }
  int id;
  int calls = 0;
  std::array<char, Bytes> padding{};
};

/// Its move may throw, so it must live outside.
struct throwing_capture {
  explicit throwing_capture(int number) : id(number) { ++alive; }
  throwing_capture(const throwing_capture& other) : id(other.id), calls(other.calls) {
    faults::point();
    ++alive;
  }
  throwing_capture& operator=(const throwing_capture&) = delete;
  ~throwing_capture() { --alive; }
  int operator()(int add) {
    faults::point();
    return id + add + calls++;
  }
  int id;
  int calls = 0;
};

struct held {
  int id;
  int calls;
};

class session {
 public:
  explicit session(byte_source& from) : from_(from) {}

  void run() {
    for (int number = 1; !from_.empty(); ++number) {
      step(number);
      int expected = 0;
      for (std::size_t i = 0; i < slots; ++i) {
        agree(static_cast<bool>(functions_[i]), model_[i].has_value(), "whether it is empty");
        expected += model_[i] ? 1 : 0;
      }
      agree(alive, expected, "captures alive");
    }
  }

 private:
  static constexpr std::size_t slots = 4;

  void step(int number) {
    const std::size_t at = from_.below(slots);
    switch (from_.below(8)) {
      case 0: return make(at, number, [&] { return function(capture<1>(number)); });
      case 1: return make(at, number, [&] { return function(capture<200>(number)); });
      case 2: return make(at, number, [&] { return function(throwing_capture(number)); });
      case 3: return move(at, from_.below(slots));
      case 4: return move_construct(at, from_.below(slots));
      case 5: return call(at);
      case 6: return reset(at);
      default:
        trace::add("assign-empty");
        functions_[at] = nullptr;
        model_[at].reset();
    }
  }

  template <class Make>
  void make(std::size_t at, int number, Make maker) {
    trace::add("make");
    if (got_through(from_, [&] { functions_[at] = maker(); })) model_[at] = held{number, 0};
  }

  void move(std::size_t to, std::size_t source) {
    trace::add("move");
    functions_[to] = std::move(functions_[source]);
    if (to != source) model_[to] = std::exchange(model_[source], std::nullopt);
  }

  void move_construct(std::size_t to, std::size_t source) {
    trace::add("move-construct");
    function taken(std::move(functions_[source]));
    require(!functions_[source], "a moved-from function is empty");
    const auto was = std::exchange(model_[source], std::nullopt);
    functions_[to] = std::move(taken);
    model_[to] = was;
  }

  void call(std::size_t at) {
    if (!model_[at]) return;
    trace::add("call");
    int got = 0;
    if (!got_through(from_, [&] { got = functions_[at](7); })) return;
    agree(got, model_[at]->id + 7 + model_[at]->calls, "the call's result");
    ++model_[at]->calls;
  }

  void reset(std::size_t at) {
    trace::add("reset");
    functions_[at].reset();
    model_[at].reset();
  }

  byte_source& from_;
  std::array<function, slots> functions_;
  std::array<std::optional<held>, slots> model_;
};

}  // namespace

void one_input(byte_source& from) {
  {
    session one(from);
    one.run();
  }
  agree(alive, 0, "captures alive at the end");
}

}  // namespace veltrix_fuzz
