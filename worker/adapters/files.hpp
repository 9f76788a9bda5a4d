// The worker's small files: dead letters, the saved position, the metrics.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "readers.hpp"
#include "veltrix/detail/sync.hpp"
#include "veltrix/worker/concepts.hpp"

namespace veltrix_worker {

/// Appends what was refused, one JSON object a line: source, line, offset, length, reason, detail,
/// and text (or base64, where it is no UTF-8). The file appears with its first letter.
class dead_letter_file {
 public:
  explicit dead_letter_file(std::string source) : source_(std::move(source)) {}
  dead_letter_file(const dead_letter_file&) = delete;
  dead_letter_file& operator=(const dead_letter_file&) = delete;
  ~dead_letter_file();

  void configure(const veltrix::config_snapshot& config);
  veltrix::letter_status write(const veltrix::rejected_line& line);
  std::string flush();
  [[nodiscard]] std::string failure() const;

 private:
  using lock_guard = veltrix::detail::sync::lock_guard<veltrix::detail::sync::mutex>;

  bool open();                       // under mutex_
  void close();                      // under mutex_
  bool failed(std::string problem);  // under mutex_; false

  const std::string source_;
  mutable veltrix::detail::sync::mutex mutex_;  // guards everything below
  std::string path_;                            // guarded by mutex_
  std::uint64_t most_bytes_ = 0;                // guarded by mutex_
  int descriptor_ = -1;                         // guarded by mutex_; -1: not open
  std::uint64_t size_ = 0;                      // guarded by mutex_
  bool unsynced_ = false;                       // guarded by mutex_
  std::string problem_;                         // guarded by mutex_; the last
};

/// What the file of a saved position says.
struct saved_position {
  veltrix::commit_record record;
  std::string source;       ///< "file", "stdin", "generate"
  input_identity identity;  ///< of the input
  std::string sink;         ///< as any_sink::name() says it
};

/// Keeps the position: replaced whole and synced, so that a crash leaves the old or the new one.
class commit_file {
 public:
  /// An empty path keeps nothing.
  commit_file(std::string path, std::string source, std::string sink, const any_reader& reader)
      : path_(std::move(path)),
        source_(std::move(source)),
        sink_(std::move(sink)),
        reader_(reader) {}

  std::string save(const veltrix::commit_record& record);

  struct loaded {
    std::optional<saved_position> saved;  ///< empty if there is no file
    std::string problem;                  ///< the file is there and cannot be used
  };
  [[nodiscard]] static loaded load(const std::string& path);

 private:
  const std::string path_;
  const std::string source_;
  const std::string sink_;
  const any_reader& reader_;
};

/// Puts the metrics where the text-file collector finds them.
class metrics_file {
 public:
  /// An empty path writes nothing.
  explicit metrics_file(std::string path) : path_(std::move(path)) {}
  std::string publish(std::string_view text) const;

 private:
  const std::string path_;
};

}  // namespace veltrix_worker
