// SPDX-License-Identifier: BSL-1.0
#include "sinks.hpp"

#include <cerrno>
#include <charconv>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system_text.hpp"

namespace veltrix_worker {

namespace {

void append_number(std::string& out, std::uint64_t number) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out.append(digits, static_cast<std::size_t>(end - digits));
}

void append_result(std::string& out, const veltrix::event& each) {
  out.append(R"({"id":)");
  if (each.id_is_number) {
    out.append(each.id);
  } else {
    append_json(out, each.id);
  }
  out.append(R"(,"key":)");
  append_json(out, each.key);
  out.append(R"(,"seq":)");
  if (each.has_sequence) {
    append_number(out, each.sequence);
  } else {
    out.append("null");
  }
  out.append(R"(,"offset":)");
  append_number(out, each.number);
  out.append("}\n");
}

/// Cuts a regular file to `keep`, or ends its last line. Result: a problem, or empty.
std::string prepare(int file, const std::string& path, std::optional<std::uint64_t> keep,
                    std::uint64_t& size) {
  struct ::stat about{};
  if (::fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) return {};
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    return "'" + path + "' is in use by another worker";
  }
  size = static_cast<std::uint64_t>(about.st_size);
  if (keep.has_value()) {
    if (size < *keep) {
      return "'" + path + "' has " + std::to_string(size) + " bytes, the saved position needs " +
             std::to_string(*keep);
    }
    size = *keep;
    if (::ftruncate(file, static_cast<::off_t>(size)) != 0) {
      return "cannot cut '" + path + "': " + errno_text(errno);
    }
  }
  if (::lseek(file, static_cast<::off_t>(size), SEEK_SET) < 0) {
    return "cannot seek in '" + path + "': " + errno_text(errno);
  }
  char last = '\n';
  if (size != 0 && ::pread(file, &last, 1, static_cast<::off_t>(size - 1)) == 1 && last != '\n') {
    if (write_all(file, "\n") != 1) return "cannot write '" + path + "': " + errno_text(errno);
    ++size;
  }
  return {};
}

}  // namespace

file_sink::file_sink(std::string path, int descriptor, std::uint64_t size)
    : path_(std::move(path)), descriptor_(descriptor), written_(size), durable_(size) {}

file_sink::~file_sink() {
  ::close(descriptor_);
}

file_sink::opened file_sink::open(const std::string& path,
                                  std::optional<std::uint64_t> keep_bytes) {
  // Reading is for the last byte; a pipe or a device need not allow it.
  int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0 && (errno == EACCES || errno == EINVAL)) {
    file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  }
  if (file < 0) return {nullptr, "cannot open '" + path + "': " + errno_text(errno)};
  std::uint64_t size = 0;
  std::string problem = prepare(file, path, keep_bytes, size);
  if (!problem.empty()) {
    ::close(file);
    return {nullptr, std::move(problem)};
  }
  return {std::unique_ptr<file_sink>(new file_sink(path, file, size)), {}};
}

std::string file_sink::write(std::span<veltrix::event* const> batch) {
  thread_local std::string lines;
  lines.clear();
  for (const veltrix::event* each : batch)
    append_result(lines, *each);
  const lock_guard lock(mutex_);
  if (!problem_.empty()) return problem_;
  buffer_.append(lines);
  if (buffer_.size() >= buffer_bytes) write_buffer();
  return problem_;
}

void file_sink::write_buffer() {
  const std::size_t count = write_all(descriptor_, buffer_);
  if (count != buffer_.size()) {
    const int error = errno;
    problem_ = "cannot write '" + path_ + "' after byte " + std::to_string(written_) + ": " +
               errno_text(error);
    // The part of a line is taken back; where that cannot be done, a restart does it.
    static_cast<void>(!::ftruncate(descriptor_, static_cast<::off_t>(written_)));
    return;
  }
  written_ += count;
  buffer_.clear();
}

std::string file_sink::flush() {
  std::uint64_t reached = 0;
  {
    const lock_guard lock(mutex_);
    if (!problem_.empty()) return problem_;
    if (!buffer_.empty()) write_buffer();
    if (!problem_.empty()) return problem_;
    if (written_ == durable_) return {};
    reached = written_;
  }
  const int error = sync_data(descriptor_);
  const lock_guard lock(mutex_);
  if (error != 0) {
    problem_ = "cannot sync '" + path_ + "': " + errno_text(error);
    return problem_;
  }
  durable_ = reached;
  return {};
}

std::uint64_t file_sink::position() const {
  const lock_guard lock(mutex_);
  return durable_;
}

}  // namespace veltrix_worker
