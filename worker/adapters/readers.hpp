// Where bytes come from: a file, a pipe, or made up.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "veltrix/clock.hpp"
#include "veltrix/detail/sync.hpp"
#include "veltrix/worker/commit_tracker.hpp"
#include "veltrix/worker/line_splitter.hpp"

namespace veltrix_worker {

/// The first bytes of an input, by which a later run knows it again.
class input_head {
 public:
  static constexpr std::size_t most_bytes = 4096;

  /// Takes bytes as they are read, from the beginning.
  void add(std::span<const char> bytes);
  /// The digest of the first min(bytes, 4096) bytes.
  [[nodiscard]] std::uint64_t digest(std::uint64_t bytes) const;

 private:
  mutable veltrix::detail::sync::mutex mutex_;
  std::string bytes_;  // guarded by mutex_
};

/// What a saved position knows of its input.
struct input_identity {
  std::uint64_t bytes = 0;  ///< of the input that the digest covers, at most 4096 of them
  std::uint64_t digest = 0;
};

/// A file or a pipe. Regular files are read to their end; pipes until the other side closes.
class fd_reader {
 public:
  /// Takes the descriptor over if `owned`.
  enum class ownership : std::uint8_t { owned, borrowed };
  fd_reader(int descriptor, ownership whose, std::string name);
  fd_reader(const fd_reader&) = delete;
  fd_reader& operator=(const fd_reader&) = delete;
  ~fd_reader();

  veltrix::read_result read(std::span<char> into);
  void wait(veltrix::time_point until) const;
  /// Why reading cannot go on there; empty: it can. A pipe skips, and finds out while it does.
  std::string start_after(const veltrix::input_position& place);
  /// What the input must begin with, if it is the one that a position was saved for.
  void expect(const input_identity& known) { expected_ = known; }

  [[nodiscard]] std::optional<std::uint64_t> size() const;
  [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] std::uint64_t digest(std::uint64_t bytes) const { return head_.digest(bytes); }

 private:
  veltrix::read_result read_some(std::span<char> into);
  veltrix::read_result skip(std::span<char> into);
  [[nodiscard]] bool readable(int milliseconds) const;

  const int descriptor_;
  const ownership whose_;
  const std::string name_;
  bool regular_ = false;
  input_head head_;
  std::optional<input_identity> expected_;
  std::uint64_t to_skip_ = 0;
  std::uint64_t skip_target_ = 0;
  std::string failure_;
};

struct generator_options {
  std::uint64_t count = 0;  ///< events; 0: without end
  std::uint64_t keys = 1;
  std::size_t event_bytes = 100;  ///< of a line without its line feed; more where fields need more
  std::uint64_t seed = 0;
};

/// Makes events: the same options give the same bytes. Every key comes once in each round of all
/// keys, with its sequence number; times are a millisecond apart.
class generate_reader {
 public:
  explicit generate_reader(const generator_options& options);

  veltrix::read_result read(std::span<char> into);
  void wait(veltrix::time_point) const {}
  std::string start_after(const veltrix::input_position& place);
  [[nodiscard]] std::optional<std::uint64_t> size() const { return std::nullopt; }
  [[nodiscard]] std::string failure() const { return {}; }  // it cannot fail
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Of the options, which say all.
  [[nodiscard]] std::uint64_t digest(std::uint64_t bytes) const;

 private:
  void make_line();
  void set_second(std::uint64_t second);

  const generator_options options_;
  const std::string name_ = "generate";
  std::uint64_t stride_ = 1;  // coprime to keys: visits every key once in a round
  std::uint64_t next_ = 0;
  std::uint64_t round_ = 0;
  std::uint64_t in_round_ = 0;
  std::uint64_t key_ = 0;
  std::uint64_t second_ = 0;
  std::string time_;  // "2025-01-01T00:00:00." of second_
  std::string line_;
  std::size_t line_at_ = 0;  // bytes of line_ already given
};

/// The reader that the configuration chose; asked once for a block, not for an event.
class any_reader {
 public:
  using choice = std::variant<std::unique_ptr<fd_reader>, std::unique_ptr<generate_reader>>;
  explicit any_reader(choice chosen) : chosen_(std::move(chosen)) {}

  veltrix::read_result read(std::span<char> into) {
    return std::visit([&](auto& reader) { return reader->read(into); }, chosen_);
  }
  void wait(veltrix::time_point until) {
    std::visit([&](auto& reader) { reader->wait(until); }, chosen_);
  }
  std::string start_after(const veltrix::input_position& place) {
    return std::visit([&](auto& reader) { return reader->start_after(place); }, chosen_);
  }
  [[nodiscard]] std::optional<std::uint64_t> size() const {
    return std::visit([](const auto& reader) { return reader->size(); }, chosen_);
  }
  [[nodiscard]] std::string failure() const {
    return std::visit([](const auto& reader) { return reader->failure(); }, chosen_);
  }
  [[nodiscard]] std::string name() const {
    return std::visit([](const auto& reader) { return reader->name(); }, chosen_);
  }
  [[nodiscard]] std::uint64_t digest(std::uint64_t bytes) const {
    return std::visit([&](const auto& reader) { return reader->digest(bytes); }, chosen_);
  }

 private:
  choice chosen_;
};

}  // namespace veltrix_worker
