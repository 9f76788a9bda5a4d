// Small helpers around the operating system: errors as text, whole writes, durable files.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string>
#include <string_view>

namespace veltrix_worker {

/// "No space left on device (ENOSPC)".
[[nodiscard]] std::string errno_text(int error);

/// Writes all of `bytes`. Result: how many were written; fewer than asked leaves errno set.
[[nodiscard]] std::size_t write_all(int descriptor, std::string_view bytes);

/// Makes what was written durable. Result: 0 or an errno; things that cannot sync are fine.
[[nodiscard]] int sync_data(int descriptor);

/// Replaces `path` by `bytes`, wholly or not at all: a temporary file beside it, renamed over it.
enum class durability : unsigned char { synced, unsynced };
[[nodiscard]] std::string replace_file(const std::string& path, std::string_view bytes,
                                       durability how);

/// Appends `text` as a JSON string, quotes included.
void append_json(std::string& out, std::string_view text);

/// Whether `text` is UTF-8.
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;

[[nodiscard]] std::string base64(std::string_view bytes);

}  // namespace veltrix_worker
