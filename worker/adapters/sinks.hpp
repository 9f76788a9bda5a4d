// Where results go: counted, or into a file.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "veltrix/detail/sync.hpp"
#include "veltrix/worker/event.hpp"

namespace veltrix_worker {

/// Takes results and keeps none; the worker counts them anyway.
class count_sink {
 public:
  std::string write(std::span<veltrix::event* const>) { return {}; }
  std::string flush() { return {}; }
  [[nodiscard]] std::uint64_t position() const { return 0; }
  [[nodiscard]] std::string name() const { return "count"; }
};

/// Appends one JSON line for each event: id, key, seq and offset (the line number in the input).
/// Lines stand in the order in which events were done, so the lines of one key keep its order.
/// A line is in the file wholly or not at all when flush() has returned, or failed.
class file_sink {
 public:
  struct opened {
    std::unique_ptr<file_sink> sink;
    std::string problem;  ///< why there is no sink
  };
  /// `keep_bytes`: what is beyond them is the work of a run that did not save its position, and is
  /// cut off; empty: all is kept.
  static opened open(const std::string& path, std::optional<std::uint64_t> keep_bytes);
  file_sink(const file_sink&) = delete;
  file_sink& operator=(const file_sink&) = delete;
  ~file_sink();

  std::string write(std::span<veltrix::event* const> batch);
  std::string flush();
  [[nodiscard]] std::uint64_t position() const;
  [[nodiscard]] std::string name() const { return "file " + path_; }

 private:
  static constexpr std::size_t buffer_bytes = 256 * 1024;
  using lock_guard = veltrix::detail::sync::lock_guard<veltrix::detail::sync::mutex>;

  file_sink(std::string path, int descriptor, std::uint64_t size);
  void write_buffer();  // under mutex_

  const std::string path_;
  const int descriptor_;
  mutable veltrix::detail::sync::mutex mutex_;  // guards everything below
  std::string buffer_;                          // guarded by mutex_; whole lines
  std::uint64_t written_ = 0;                   // guarded by mutex_; bytes in the file
  std::uint64_t durable_ = 0;                   // guarded by mutex_; written_ at the last flush()
  std::string problem_;                         // guarded by mutex_; the first, for ever
};

/// The sink that the configuration chose; asked once for a batch, not for an event.
class any_sink {
 public:
  using choice = std::variant<count_sink, std::unique_ptr<file_sink>>;
  explicit any_sink(choice chosen) : chosen_(std::move(chosen)) {}

  std::string write(std::span<veltrix::event* const> batch) {
    if (auto* file = std::get_if<std::unique_ptr<file_sink>>(&chosen_))
      return (*file)->write(batch);
    return std::get<count_sink>(chosen_).write(batch);
  }
  std::string flush() {
    if (auto* file = std::get_if<std::unique_ptr<file_sink>>(&chosen_)) return (*file)->flush();
    return {};
  }
  [[nodiscard]] std::uint64_t position() const {
    const auto* file = std::get_if<std::unique_ptr<file_sink>>(&chosen_);
    return file == nullptr ? 0 : (*file)->position();
  }
  [[nodiscard]] std::string name() const {
    const auto* file = std::get_if<std::unique_ptr<file_sink>>(&chosen_);
    return file == nullptr ? "count" : (*file)->name();
  }

 private:
  choice chosen_;
};

}  // namespace veltrix_worker
