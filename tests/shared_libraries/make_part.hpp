// A part's own code: every file that includes this has a copy, as header-only libraries do.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "part.hpp"

namespace parts {
namespace {

class own_holder final : public holder {
 public:
  explicit own_holder(cell& of) : cell_(of), reader_(of.reader()) {}

  void hold() override {
    guards_.push_back(cell_.load());  // in a slot of the thread
    guards_.push_back(reader_.load());
    for (int i = 0; i < 6; ++i)
      guards_.push_back(cell_.load());  // more than there are slots
    version_ = reader_.get().number();
    shared_ = cell_.share();
  }
  bool intact() override {
    bool good = reader_.version() == version_ && shared_->is(version_);
    for (const auto& each : guards_)
      good = good && each.version() == version_ && each->is(version_);
    auto other = cell_.reader();
    return good && other.get().number() >= version_;
  }

 private:
  cell& cell_;
  cell::cached_reader reader_;
  std::vector<cell::guard> guards_;
  std::shared_ptr<const value> shared_;
  std::uint64_t version_ = 0;
};

bool read_once(cell& from, std::uint64_t& last) {
  const auto outer = from.load();
  const auto inner = from.load();
  auto reader = from.reader();
  const value& cached = reader.get();
  const bool good = outer->is(outer.version()) && inner->is(inner.version()) &&
                    cached.is(reader.version()) && from.share()->intact() &&
                    outer.version() >= last && inner.version() >= outer.version();
  last = inner.version();
  return good;
}

bool read_in_new_thread(cell& from, int reads) {
  bool good = true;
  std::thread([&] {
    std::uint64_t last = 0;
    for (int i = 0; i < reads; ++i)
      good = read_once(from, last) && good;
  }).join();
  return good;
}

constexpr part make_part(const char* name) {
  return {
      .name = name,
      .make = [](std::uint64_t number) { return new cell(std::in_place, number); },
      .end = [](cell* ended) { delete ended; },
      .publish = [](cell& to, std::uint64_t number) { to.emplace(number); },
      .holder_of = [](cell& of) -> holder* { return new own_holder(of); },
      .drop = [](holder* ended) { delete ended; },
      .read = &read_once,
      .read_in_new_thread = &read_in_new_thread,
      .domain = []() -> const void* { return &veltrix::reclaim_domain::shared(); },
      .records_in_use = [] { return veltrix::reclaim_domain::shared().stats().records_in_use; },
  };
}

}  // namespace
}  // namespace parts
