// Cuts a stream of bytes into lines, a block at a time, in bounded memory.
// Use for: JSON Lines from a file, a pipe or a generator.
// Not for: records that may contain line feeds.
// Threads: one.
// Progress: as the reader's.
// Callbacks: the reader, no lock held.
// Exceptions: std::bad_alloc, and those of the reader.
// Lifetime: owns the beginning of a line whose end has not come yet.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "event.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// How a read went.
enum class read_status : std::uint8_t {
  data,    ///< some bytes came
  idle,    ///< none are there now
  end,     ///< none will come
  failed,  ///< the reader says why
};

struct [[nodiscard]] read_result {
  read_status status = read_status::idle;
  std::size_t bytes = 0;  ///< with `data`, at least 1
};

/// Gives bytes: `read` never waits for more than are there.
template <class Reader>
concept byte_reader = requires(Reader& reader, std::span<char> into) {
  { reader.read(into) } -> std::same_as<read_result>;
};

struct splitter_limits {
  std::size_t max_line_bytes = 65536;    ///< longer lines are rejected
  std::size_t block_bytes = 512 * 1024;  ///< text that a block aims at
  std::size_t max_lines = event_block::max_events;
};

/// I1: carry_ holds at most one unfinished line and the whole lines that did not fit into a block.
/// I2: while skipping_, the bytes of a line that is too long are counted and thrown away.
class line_splitter {
 public:
  line_splitter() = default;
  line_splitter(const line_splitter&) = delete;
  line_splitter& operator=(const line_splitter&) = delete;

  /// Goes on from a place: `lines` and `bytes` of the source are done.
  void start_after(std::uint64_t lines, std::uint64_t bytes) noexcept {
    next_line_ = lines + 1;
    next_offset_ = bytes;
  }

  /// Fills an empty block with whole lines; rejects lines that are too long.
  /// Result: data if the block took a line, else what the reader said.
  template <byte_reader Reader>
  read_status fill(event_block& block, Reader& reader, const splitter_limits& limits) {
    block.first_line = next_line_;
    block.begin_offset = next_offset_;
    block.grow_text(carry_.size() + wanted_text(limits));
    if (!carry_.empty()) std::memcpy(block.free_text().data(), carry_.data(), carry_.size());
    block.set_text_size(carry_.size());
    const std::size_t carried = carry_.size();
    carry_.clear();
    const read_status last = read_into(block, reader, limits, carried);
    cut(block, limits, last == read_status::end);
    block.line_count = next_line_ - block.first_line;
    block.end_offset = next_offset_;
    adapt(block);
    return block.line_count != 0 ? read_status::data : last;
  }

  [[nodiscard]] std::uint64_t next_line() const noexcept { return next_line_; }
  [[nodiscard]] std::uint64_t next_offset() const noexcept { return next_offset_; }

 private:
  static constexpr std::size_t least_read = 4096;

  [[nodiscard]] std::size_t wanted_text(const splitter_limits& limits) const noexcept {
    const std::size_t lines = line_estimate_ * limits.max_lines;
    return std::clamp(lines, least_read, std::max(limits.block_bytes, least_read));
  }

  /// Reads until the block has what it aims at, or until nothing more is there.
  template <class Reader>
  read_status read_into(event_block& block, Reader& reader, const splitter_limits& limits,
                        std::size_t carried) {
    const std::size_t aim = wanted_text(limits);
    bool has_line = std::memchr(block.text().data(), '\n', carried) != nullptr;
    if (has_line && carried >= aim / 2) return read_status::data;
    for (;;) {
      if (block.free_text().empty()) {
        if (has_line || block.text().size() > limits.max_line_bytes) return read_status::data;
        block.grow_text(block.text_capacity() * 2);
      }
      const read_result got = reader.read(block.free_text());
      if (got.status != read_status::data) return got.status;
      const char* fresh = block.free_text().data();
      has_line = has_line || std::memchr(fresh, '\n', got.bytes) != nullptr;
      block.set_text_size(block.text().size() + got.bytes);
      if (block.text().size() >= aim && (has_line || skipping_)) return read_status::data;
    }
  }

  void cut(event_block& block, const splitter_limits& limits, bool at_end) {
    const std::string_view text = block.text();
    std::size_t at = skipping_ ? skip(block, at_end) : 0;
    std::size_t lines = 0;
    while (at < text.size() && lines < limits.max_lines) {
      const void* found = std::memchr(text.data() + at, '\n', text.size() - at);
      if (found == nullptr && !at_end) break;
      const std::size_t end =
          found == nullptr
              ? text.size()
              : static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
      take_line(block, at, end - at, limits);
      next_offset_ += end - at + (found == nullptr ? 0 : 1);
      at = end + (found == nullptr ? 0 : 1);
      ++lines;
    }
    keep_rest(text.substr(std::min(at, text.size())), limits, lines < limits.max_lines);
  }

  void take_line(event_block& block, std::size_t begin, std::size_t length,
                 const splitter_limits& limits) {
    const std::string_view line = block.text().substr(begin, length);
    if (length > limits.max_line_bytes) {
      reject(block, line, length);
    } else if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      ++block.empty_lines;
    } else {
      block.lines().push_back({.begin = static_cast<std::uint32_t>(begin),
                               .length = static_cast<std::uint32_t>(length),
                               .number = next_line_,
                               .offset = next_offset_});
    }
    ++next_line_;
  }

  void reject(event_block& block, std::string_view head, std::uint64_t length) const {
    block.rejects().push_back({.kind = fault_kind::too_long,
                               .number = next_line_,
                               .offset = next_offset_,
                               .length = length,
                               .text = std::string(head.substr(0, rejected_line::kept_bytes)),
                               .reason = "the line has " + std::to_string(length) +
                                         " bytes, more than events.max_event_bytes allows"});
  }

  /// Throws away what belongs to the line that is too long. Result: where the next line begins.
  std::size_t skip(event_block& block, bool at_end) {
    const std::string_view text = block.text();
    const void* found = text.empty() ? nullptr : std::memchr(text.data(), '\n', text.size());
    const std::size_t rest =
        found == nullptr ? text.size()
                         : static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
    skipped_ += rest;
    const std::size_t kept = rejected_line::kept_bytes - skipped_head_.size();
    skipped_head_.append(text.substr(0, std::min(rest, kept)));
    if (found == nullptr && !at_end) return text.size();
    reject(block, skipped_head_, skipped_);
    ++next_line_;
    next_offset_ += skipped_ + (found == nullptr ? 0 : 1);
    skipping_ = false;
    return rest + 1;
  }

  void keep_rest(std::string_view rest, const splitter_limits& limits, bool unfinished) {
    if (skipping_ || rest.empty()) return;
    if (unfinished && rest.size() > limits.max_line_bytes) {
      skipping_ = true;
      skipped_ = rest.size();
      skipped_head_.assign(rest.substr(0, rejected_line::kept_bytes));
      return;
    }
    carry_.assign(rest);
  }

  void adapt(const event_block& block) noexcept {
    if (block.line_count == 0) return;
    const std::uint64_t bytes = block.end_offset - block.begin_offset;
    line_estimate_ = static_cast<std::size_t>(bytes / block.line_count + 1);
  }

  std::string carry_;
  std::string skipped_head_;
  std::uint64_t skipped_ = 0;
  bool skipping_ = false;
  std::uint64_t next_line_ = 1;
  std::uint64_t next_offset_ = 0;
  std::size_t line_estimate_ = 128;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
