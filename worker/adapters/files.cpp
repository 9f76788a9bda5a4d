// SPDX-License-Identifier: BSL-1.0
#include "files.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system_text.hpp"

namespace veltrix_worker {

using veltrix::letter_status;

// --- dead_letter_file ----------------------------------------------------------------------------

dead_letter_file::~dead_letter_file() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void dead_letter_file::configure(const veltrix::config_snapshot& config) {
  const lock_guard lock(mutex_);
  const std::string_view path = config.text(veltrix::key::dead_letter_path);
  if (path != path_) close();
  path_ = path;
  most_bytes_ = static_cast<std::uint64_t>(config.integer(veltrix::key::dead_letter_max_bytes));
}

void dead_letter_file::close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  unsynced_ = false;
}

bool dead_letter_file::failed(std::string problem) {
  problem_ = std::move(problem);
  return false;
}

bool dead_letter_file::open() {
  if (descriptor_ >= 0) return true;
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) descriptor_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0) return failed("cannot open '" + path_ + "': " + errno_text(errno));
  struct ::stat about{};
  size_ = ::fstat(descriptor_, &about) == 0 && S_ISREG(about.st_mode)
              ? static_cast<std::uint64_t>(about.st_size)
              : 0;
  // A crash may have left a part of a line: end it, so that it spoils only itself.
  char last = '\n';
  if (size_ != 0 && ::pread(descriptor_, &last, 1, static_cast<::off_t>(size_ - 1)) == 1 &&
      last != '\n') {
    if (write_all(descriptor_, "\n") != 1) {
      return failed("cannot write '" + path_ + "': " + errno_text(errno));
    }
    ++size_;
  }
  return true;
}

namespace {

std::string letter_text(const veltrix::rejected_line& line, const std::string& source) {
  std::string text = R"({"source":)";
  append_json(text, source);
  text.append(R"(,"line":)").append(std::to_string(line.number));
  text.append(R"(,"offset":)").append(std::to_string(line.offset));
  text.append(R"(,"length":)").append(std::to_string(line.length));
  text.append(R"(,"reason":)");
  append_json(text, veltrix::to_string(line.kind));
  text.append(R"(,"detail":)");
  append_json(text, line.reason);
  if (is_utf8(line.text)) {
    text.append(R"(,"text":)");
    append_json(text, line.text);
  } else {
    text.append(R"(,"base64":")").append(base64(line.text)).append("\"");
  }
  if (line.text.size() < line.length) text.append(R"(,"truncated":true)");
  return text.append("}\n");
}

}  // namespace

letter_status dead_letter_file::write(const veltrix::rejected_line& line) {
  const std::string text = letter_text(line, source_);
  const lock_guard lock(mutex_);
  if (!open()) return letter_status::failed;
  if (size_ + text.size() > most_bytes_) return letter_status::full;
  const std::size_t written = write_all(descriptor_, text);
  size_ += written;
  unsynced_ = true;
  if (written == text.size()) return letter_status::kept;
  failed("cannot write '" + path_ + "': " + errno_text(errno));
  return letter_status::failed;
}

std::string dead_letter_file::flush() {
  const lock_guard lock(mutex_);
  if (!std::exchange(unsynced_, false)) return {};
  const int error = sync_data(descriptor_);
  if (error == 0) return {};
  failed("cannot sync '" + path_ + "': " + errno_text(error));
  return problem_;
}

std::string dead_letter_file::failure() const {
  const lock_guard lock(mutex_);
  return problem_;
}

// --- commit_file ---------------------------------------------------------------------------------

namespace {

constexpr std::string_view commit_title = "veltrix-commit 1";

std::uint64_t checksum(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char byte : bytes)
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3ULL;
  return hash;
}

std::string hex(std::uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(number));
  return text;
}

/// Takes `name value` lines off the front of a text.
class line_taker {
 public:
  explicit line_taker(std::string_view text) : rest_(text) {}

  std::string_view text(std::string_view name) {
    const std::size_t end = rest_.find('\n');
    std::string_view line = rest_.substr(0, end);
    rest_ = end == std::string_view::npos ? std::string_view{} : rest_.substr(end + 1);
    if (!line.starts_with(name) || line.size() <= name.size()) {
      good_ = false;
      return {};
    }
    return line.substr(name.size() + 1);
  }

  std::uint64_t number(std::string_view name, int base = 10) {
    const std::string_view digits = text(name);
    std::uint64_t value = 0;
    const auto end = digits.data() + digits.size();
    const auto read = std::from_chars(digits.data(), end, value, base);
    good_ = good_ && read.ec == std::errc{} && read.ptr == end;
    return value;
  }

  [[nodiscard]] bool done() const { return good_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool good_ = true;
};

}  // namespace

std::string commit_file::save(const veltrix::commit_record& record) {
  if (path_.empty()) return {};
  const std::uint64_t head = std::min<std::uint64_t>(record.input.bytes, input_head::most_bytes);
  std::string text(commit_title);
  text.append("\nsource ").append(source_);
  text.append("\nlines ").append(std::to_string(record.input.lines));
  text.append("\nbytes ").append(std::to_string(record.input.bytes));
  text.append("\nhead_bytes ").append(std::to_string(head));
  text.append("\nhead_digest ").append(hex(reader_.digest(head)));
  text.append("\nsink_bytes ").append(std::to_string(record.sink_bytes));
  text.append("\nsink ").append(sink_).append("\n");
  const std::string sum = hex(checksum(text));
  text.append("checksum ").append(sum).append("\n");
  return replace_file(path_, text, durability::synced);
}

commit_file::loaded commit_file::load(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr && errno == ENOENT) return {};
  if (file == nullptr) return {std::nullopt, "cannot open '" + path + "': " + errno_text(errno)};
  std::string text(16384, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  const std::size_t last = text.rfind("checksum ");
  saved_position saved;
  if (last != std::string::npos && text.starts_with(commit_title) && text.ends_with('\n')) {
    line_taker from(std::string_view(text).substr(commit_title.size() + 1));
    saved.source = from.text("source");
    saved.record.input.lines = from.number("lines");
    saved.record.input.bytes = from.number("bytes");
    saved.identity.bytes = from.number("head_bytes");
    saved.identity.digest = from.number("head_digest", 16);
    saved.record.sink_bytes = from.number("sink_bytes");
    saved.sink = from.text("sink");
    const std::uint64_t sum = from.number("checksum", 16);
    if (from.done() && sum == checksum(std::string_view(text).substr(0, last))) {
      return {std::move(saved), {}};
    }
  }
  return {std::nullopt, "'" + path + "' is not a whole file of a saved position"};
}

// --- metrics_file --------------------------------------------------------------------------------

std::string metrics_file::publish(std::string_view text) const {
  return path_.empty() ? std::string{} : replace_file(path_, text, durability::unsynced);
}

}  // namespace veltrix_worker
