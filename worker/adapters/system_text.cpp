// SPDX-License-Identifier: BSL-1.0
#include "system_text.hpp"

#include <cerrno>
#include <cstdint>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "veltrix/worker/config_text.hpp"

namespace veltrix_worker {

std::string errno_text(int error) {
  std::string text = std::strerror(error);
#if defined(__GLIBC__)
  if (const char* name = ::strerrorname_np(error); name != nullptr) {
    text.append(" (").append(name).append(")");
  }
#endif
  return text;
}

std::size_t write_all(int descriptor, std::string_view bytes) {
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ::ssize_t count = ::write(descriptor, bytes.data() + written, bytes.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = ENOSPC;
    if (count <= 0) break;
    written += static_cast<std::size_t>(count);
  }
  return written;
}

int sync_data(int descriptor) {
  if (::fdatasync(descriptor) == 0) return 0;
  return errno == EINVAL || errno == EROFS || errno == ENOTSUP ? 0 : errno;
}

namespace {

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

void sync_directory(const std::string& path) {
  const int directory = ::open(directory_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return;
  static_cast<void>(::fsync(directory));  // the rename stands either way; this makes it last
  ::close(directory);
}

}  // namespace

std::string replace_file(const std::string& path, std::string_view bytes, durability how) {
  const std::string beside = path + ".tmp";
  const int file = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return "cannot open '" + beside + "': " + errno_text(errno);
  int error = 0;
  if (write_all(file, bytes) != bytes.size()) error = errno;
  if (error == 0 && how == durability::synced) error = sync_data(file);
  if (::close(file) != 0 && error == 0) error = errno;
  if (error == 0 && ::rename(beside.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(beside.c_str());
    return "cannot write '" + path + "': " + errno_text(error);
  }
  if (how == durability::synced) sync_directory(path);
  return {};
}

void append_json(std::string& out, std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  out.push_back('"');
  std::size_t plain = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
    out.append(text.substr(plain, at - plain));
    plain = at + 1;
    switch (byte) {
      case '"': out.append("\\\""); break;
      case '\\': out.append("\\\\"); break;
      case '\n': out.append("\\n"); break;
      case '\r': out.append("\\r"); break;
      case '\t': out.append("\\t"); break;
      default: out.append("\\u00").append(1, digits[byte >> 4U]).append(1, digits[byte & 15U]);
    }
  }
  out.append(text.substr(plain)).push_back('"');
}

bool is_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t length = veltrix::detail::utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string base64(std::string_view bytes) {
  constexpr char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - at);
    std::uint32_t group = 0;
    for (std::size_t byte = 0; byte < 3; ++byte) {
      group = group << 8U |
              (byte < count ? static_cast<unsigned char>(bytes[at + byte]) : std::uint32_t{0});
    }
    for (std::size_t letter = 0; letter < 4; ++letter) {
      const auto sextet = (group >> (18U - 6U * static_cast<unsigned>(letter))) & 63U;
      text.push_back(letter <= count ? letters[sextet] : '=');
    }
  }
  return text;
}

}  // namespace veltrix_worker
