// two_phase_loader: versions that share parts, sources that break off, lie, go back or name a part
// twice, memory that fails.
// Model: the version in force and the contents that have come, each as a plain set.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "veltrix/two_phase_loader.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::load_answer;
using veltrix::load_status;
using veltrix::loaded_version;
using veltrix::manifest;
using veltrix::two_phase_loader;

std::string digest_of(const std::string& content) {
  return "digest of " + content;
}

/// Long enough to be allocated.
std::string content_number(std::size_t number) {
  return "content number " + std::to_string(number) + " of a part";
}

/// What the source does with one part.
enum class blob_fate : std::uint8_t { comes, lacks, lies, throws };

struct scripted_source {
  std::optional<manifest> newest() {
    veltrix_test::faults::point();
    return offered;
  }
  std::optional<std::string> blob(const manifest::part& wanted) {
    veltrix_test::faults::point();
    asked.push_back(wanted.digest);
    const blob_fate fate = asked.size() - 1 == breaks_at ? breaks_how : blob_fate::comes;
    if (fate == blob_fate::throws) throw veltrix_test::injected_fault();
    if (fate == blob_fate::lacks) return std::nullopt;
    if (fate == blob_fate::lies) return "something else";
    return wanted.digest.substr(digest_of("").size());
  }

  std::optional<manifest> offered{};
  std::size_t breaks_at = 0;
  blob_fate breaks_how = blob_fate::comes;
  std::vector<std::string> asked{};
};

class session {
 public:
  explicit session(byte_source& from) : from_(from) { source_.asked.reserve(64); }

  void run() {
    while (!from_.empty()) {
      if (from_.below(4) == 0) {
        held_.push_back(subject_.current());
        held_as_.push_back(*held_.back());
      } else {
        load();
      }
      compare();
    }
    offer_good(++highest_);  // whatever happened before, the next good version comes in
    const load_answer told = load_once();
    agree(told.status == load_status::swapped, true, "a good version is taken");
    compare();
  }

 private:
  static constexpr std::size_t contents = 6;

  void load() {
    source_.breaks_at = from_.below(6);
    source_.breaks_how = static_cast<blob_fate>(from_.below(4));
    offer();
    trace::add("load");
    const bool may_fail = from_.one_in(4);
    if (may_fail) return load_under_fault();
    const expectation wanted = expect();
    if (wanted.throws) {
      try {
        source_.asked.clear();
        static_cast<void>(subject_.load());
        disagree("the source's exception passes", __FILE__, __LINE__);
      } catch (const veltrix_test::injected_fault&) {}
      return;
    }
    const load_answer told = load_once();
    agree(static_cast<int>(told.status), static_cast<int>(wanted.status), "the status");
    agree(told.version, version_, "the version in force");
    agree(told.fetched, wanted.fetched.size(), "parts fetched");
    agree(source_.asked, wanted.fetched, "which parts were asked for");
    const bool tells_why =
        wanted.status == load_status::incomplete || wanted.status == load_status::refused;
    agree(!told.why.empty(), tells_why, "a reason for what did not come");
  }

  load_answer load_once() {
    source_.asked.clear();
    return subject_.load();
  }

  void offer() {
    if (from_.one_in(12)) {
      source_.offered.reset();
      return;
    }
    manifest made;
    made.version = from_.below(4) == 0
                       ? version_ - std::min<std::uint64_t>(version_, from_.below(2))
                       : (highest_ += from_.below(2));
    for (std::size_t left = from_.below(6); left > 0; --left) {
      const std::size_t id = from_.below(8);
      made.parts.push_back(
          {"part " + std::to_string(id), digest_of(content_number(from_.below(contents)))});
    }
    if (!from_.one_in(6)) {  // most manifests name each part once
      std::set<std::string> seen;
      std::erase_if(made.parts, [&](const auto& each) { return !seen.insert(each.id).second; });
    }
    source_.offered = std::move(made);
  }

  void offer_good(std::uint64_t version) {
    source_.breaks_how = blob_fate::comes;
    source_.offered = manifest{version, {{"only", digest_of(content_number(contents))}}};
    in_force_ = {{"only", content_number(contents)}};
    version_ = version;
    arrived_.clear();
  }

  struct expectation {
    load_status status = load_status::swapped;
    std::vector<std::string> fetched{};
    bool throws = false;
  };

  /// Goes through a load by the rules, and changes the model with it.
  expectation expect() {
    if (!source_.offered) return {load_status::incomplete};
    const manifest& wanted = *source_.offered;
    if (wanted.version <= version_) return {load_status::unchanged};
    std::set<std::string> digests;
    for (const manifest::part& each : wanted.parts)
      digests.insert(each.digest);
    std::erase_if(arrived_, [&](const std::string& each) { return digests.count(each) == 0; });
    expectation told;
    std::map<std::string, std::string> next;
    for (const manifest::part& each : wanted.parts) {
      const std::string content = each.digest.substr(digest_of("").size());
      if (!next.emplace(each.id, content).second) {
        told.status = load_status::refused;
        return told;
      }
      if (has(each.digest)) continue;
      told.fetched.push_back(each.digest);
      const bool breaks = told.fetched.size() - 1 == source_.breaks_at;
      const blob_fate fate = breaks ? source_.breaks_how : blob_fate::comes;
      if (fate == blob_fate::comes) {
        arrived_.insert(each.digest);
        continue;
      }
      told.throws = fate == blob_fate::throws;
      told.status = fate == blob_fate::lacks ? load_status::incomplete : load_status::refused;
      return told;
    }
    in_force_ = std::move(next);
    version_ = wanted.version;
    arrived_.clear();
    return told;
  }
  bool has(const std::string& digest) const {
    return arrived_.count(digest) != 0 ||
           std::any_of(in_force_.begin(), in_force_.end(),
                       [&](const auto& each) { return digest_of(each.second) == digest; });
  }

  /// Memory or the source fails somewhere: the old version stays whole, and a good one can be had.
  void load_under_fault() {
    source_.breaks_how = blob_fate::comes;
    source_.asked.clear();
    const std::uint64_t old = version_;
    if (got_through(from_, [&] { static_cast<void>(subject_.load()); })) {
      static_cast<void>(expect());
      return;
    }
    agree(subject_.current()->version, old, "the old version stays");
    compare_version();
    offer_good(highest_ += 1);
    source_.breaks_how = blob_fate::comes;
    agree(load_once().status == load_status::swapped, true, "and the next one comes in");
  }

  void compare_version() const {
    const std::shared_ptr<const loaded_version> now = subject_.current();
    agree(now->version, version_, "the version");
    agree(now->parts.size(), in_force_.size(), "how many parts it has");
    for (const auto& [id, content] : in_force_) {
      const std::string* const got = now->find(id);
      require(got != nullptr, "a part of the version");
      agree(*got, content, "its content");
    }
  }

  void compare() const {
    compare_version();
    std::set<std::string> kept = arrived_;
    for (const auto& each : in_force_)
      kept.insert(digest_of(each.second));
    agree(subject_.kept_parts(), kept.size(), "parts kept");
    for (std::size_t i = 0; i < held_.size(); ++i)
      require(held_[i]->parts == held_as_[i].parts, "a version that is held");
  }

  byte_source& from_;
  scripted_source source_{};
  two_phase_loader<scripted_source, std::string (*)(const std::string&)> subject_{source_,
                                                                                  &digest_of};
  std::uint64_t version_ = 0;
  std::uint64_t highest_ = 0;
  std::map<std::string, std::string> in_force_{};  // id: content
  std::set<std::string> arrived_{};                // digests that came for a version not in force
  std::vector<std::shared_ptr<const loaded_version>> held_{};
  std::vector<loaded_version> held_as_{};
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
