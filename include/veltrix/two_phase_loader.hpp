// Loads a version in two phases: a list of parts with their digests, then the parts it lacks.
// Use for: configurations and models of many files that must never be seen half new.
// Not for: single values; see snapshot_cell.
// Threads: current() from any thread; load() from one at a time.
// Progress: current() takes a short lock; load() blocks as its source does.
// Callbacks: the source and the digest, no lock held.
// Exceptions: what the source throws; the old version stays, and parts that came are kept.
// Lifetime: source and digest outlive the loader; a version lives while somebody holds it.
// Guide: docs/two_phase_loader.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "detail/sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What a version consists of. The source gives it in one strong read.
struct manifest {
  struct part {
    std::string id;
    std::string digest;  ///< of the content; equal digests are equal content
  };
  std::uint64_t version = 0;  ///< 1 or more; higher is newer
  std::vector<part> parts{};
};

/// Where versions come from. `blob` gives the content of a part, which never changes for a digest.
template <class Source>
concept two_phase_source = requires(Source& source, const manifest::part& wanted) {
  { source.newest() } -> std::convertible_to<std::optional<manifest>>;
  { source.blob(wanted) } -> std::convertible_to<std::optional<std::string>>;
};

/// A complete version: every part of one manifest.
struct loaded_version {
  std::uint64_t version = 0;  ///< 0: none was loaded yet
  std::unordered_map<std::string, std::shared_ptr<const std::string>> parts{};  ///< by id

  /// The content of a part, or null.
  [[nodiscard]] const std::string* find(const std::string& id) const {
    const auto found = parts.find(id);
    return found == parts.end() ? nullptr : found->second.get();
  }
};

enum class load_status : std::uint8_t {
  swapped,     ///< a newer version is in force
  unchanged,   ///< there is none
  incomplete,  ///< the source gave no manifest or not every part; the old version stays
  refused,     ///< a part is not what its digest says, or the manifest is bad; the old one stays
};

/// The answer of load().
struct [[nodiscard]] load_answer {
  load_status status;
  std::uint64_t version;    ///< in force now
  std::size_t fetched = 0;  ///< parts asked of the source, those that did not come included
  std::string why{};        ///< incomplete, refused: what and where
};

/// @tparam Digest  `digest(const std::string&)` gives what a manifest holds for that content
///
/// I1: what current() gives is all of one manifest, each part checked.
/// I2: parts_ holds every part of the version in force, by digest, and those of a newer one so far;
///     arrived_ names the latter.
template <two_phase_source Source, class Digest>
class two_phase_loader {
 public:
  two_phase_loader(Source& source, Digest digest)
      : source_(source),
        digest_(std::move(digest)),
        current_(std::make_shared<const loaded_version>()) {}
  two_phase_loader(const two_phase_loader&) = delete;
  two_phase_loader& operator=(const two_phase_loader&) = delete;

  /// The version in force. Never null.
  [[nodiscard]] std::shared_ptr<const loaded_version> current() const noexcept {
    const lock_guard lock(mutex_);
    return current_;
  }

  /// Looks for a newer version, fetches what is missing of it, and puts it in force when all of it
  /// is there. Broken off anywhere, it goes on from there when called again. Expected O(parts),
  /// however few have changed.
  load_answer load() {
    const std::uint64_t old = current()->version;
    std::optional<manifest> wanted = source_.newest();
    if (!wanted) return {load_status::incomplete, old, 0, "the source gave no manifest"};
    if (wanted->version <= old) return {load_status::unchanged, old};
    ++round_;
    forget_arrived_but(*wanted);
    auto next = std::make_shared<loaded_version>();
    next->version = wanted->version;
    next->parts.reserve(wanted->parts.size());
    std::size_t fetched = 0;
    for (const manifest::part& each : wanted->parts) {
      const auto place = next->parts.try_emplace(each.id);
      if (!place.second) {
        return {load_status::refused, old, fetched,
                "'" + each.id + "' stands twice in version " + std::to_string(wanted->version)};
      }
      lack missing = provide(each, place.first->second, fetched);
      if (!missing.why.empty()) return {missing.status, old, fetched, std::move(missing.why)};
    }
    put_in_force(std::move(next));
    return {load_status::swapped, wanted->version, fetched};
  }

  /// Parts kept: of the version in force, and of one that is not complete.
  [[nodiscard]] std::size_t kept_parts() const noexcept { return parts_.size(); }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;
  using content = std::shared_ptr<const std::string>;

  struct kept_part {
    content whole;
    std::uint64_t round;  ///< the last one that wanted it
  };

  /// Why a part cannot be had; `why` is empty when it can.
  struct lack {
    load_status status = load_status::incomplete;
    std::string why{};
  };

  /// Finds a part, or fetches and checks it.
  lack provide(const manifest::part& wanted, content& place, std::size_t& fetched) {
    if (const auto kept = parts_.find(wanted.digest); kept != parts_.end()) {
      kept->second.round = round_;
      place = kept->second.whole;
      return {};
    }
    ++fetched;
    std::optional<std::string> got = source_.blob(wanted);
    if (!got) {
      return {load_status::incomplete,
              "the source gave no '" + wanted.id + "' (" + wanted.digest + ")"};
    }
    if (const std::string is = digest_(*got); is != wanted.digest) {
      return {load_status::refused,
              "'" + wanted.id + "' has the digest " + is + ", its manifest says " + wanted.digest};
    }
    place = std::make_shared<const std::string>(std::move(*got));
    arrived_.push_back(wanted.digest);
    parts_.emplace(wanted.digest, kept_part{place, round_});
    return {};
  }

  /// Drops what came for a version that was given up, but for what this one wants as well.
  void forget_arrived_but(const manifest& wanted) {
    if (arrived_.empty()) return;
    for (const manifest::part& each : wanted.parts) {
      if (const auto kept = parts_.find(each.digest); kept != parts_.end())
        kept->second.round = round_;
    }
    std::erase_if(arrived_, [this](const std::string& digest) {
      const auto kept = parts_.find(digest);
      if (kept != parts_.end() && kept->second.round == round_) return false;
      if (kept != parts_.end()) parts_.erase(kept);
      return true;
    });
  }

  void put_in_force(std::shared_ptr<const loaded_version> next) {
    std::erase_if(parts_, [this](const auto& each) { return each.second.round != round_; });
    arrived_.clear();
    const lock_guard lock(mutex_);
    current_.swap(next);  // the old one ends after the lock, with `next`
  }

  Source& source_;
  Digest digest_;
  // Of load() alone:
  std::unordered_map<std::string, kept_part> parts_;  // by digest
  std::vector<std::string> arrived_;                  // digests of parts of no version in force yet
  std::uint64_t round_ = 0;                           // counts what was looked for

  mutable detail::sync::mutex mutex_;  // guards current_
  std::shared_ptr<const loaded_version> current_;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
