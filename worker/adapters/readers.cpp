// SPDX-License-Identifier: BSL-1.0
#include "readers.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <numeric>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system_text.hpp"
#include "veltrix/detail/hash.hpp"
#include "veltrix/worker/time_text.hpp"

namespace veltrix_worker {

using veltrix::read_result;
using veltrix::read_status;

// --- input_head ----------------------------------------------------------------------------------

void input_head::add(std::span<const char> bytes) {
  if (bytes_.size() >= most_bytes) return;  // only this thread writes it
  const veltrix::detail::sync::lock_guard<veltrix::detail::sync::mutex> lock(mutex_);
  bytes_.append(bytes.data(), std::min(bytes.size(), most_bytes - bytes_.size()));
}

std::uint64_t input_head::digest(std::uint64_t bytes) const {
  const veltrix::detail::sync::lock_guard<veltrix::detail::sync::mutex> lock(mutex_);
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a: the same on every machine
  for (std::size_t at = 0; at < std::min<std::uint64_t>(bytes, bytes_.size()); ++at)
    hash = (hash ^ static_cast<unsigned char>(bytes_[at])) * 0x100000001b3ULL;
  return hash;
}

// --- fd_reader -----------------------------------------------------------------------------------

fd_reader::fd_reader(int descriptor, ownership whose, std::string name)
    : descriptor_(descriptor), whose_(whose), name_(std::move(name)) {
  struct ::stat about{};
  regular_ = ::fstat(descriptor_, &about) == 0 && S_ISREG(about.st_mode);
}

fd_reader::~fd_reader() {
  if (whose_ == ownership::owned) ::close(descriptor_);
}

bool fd_reader::readable(int milliseconds) const {
  ::pollfd waiting{.fd = descriptor_, .events = POLLIN, .revents = 0};
  return ::poll(&waiting, 1, milliseconds) > 0;
}

read_result fd_reader::read_some(std::span<char> into) {
  if (!regular_ && !readable(0)) return {read_status::idle, 0};
  for (;;) {
    const ::ssize_t count = ::read(descriptor_, into.data(), into.size());
    if (count > 0) {
      head_.add({into.data(), static_cast<std::size_t>(count)});
      return {read_status::data, static_cast<std::size_t>(count)};
    }
    if (count == 0) return {read_status::end, 0};
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return {read_status::idle, 0};
    failure_ = "cannot read '" + name_ + "': " + errno_text(errno);
    return {read_status::failed, 0};
  }
}

read_result fd_reader::read(std::span<char> into) {
  return to_skip_ == 0 ? read_some(into) : skip(into);
}

read_result fd_reader::skip(std::span<char> into) {
  while (to_skip_ != 0) {
    const read_result got = read_some(into.first(std::min<std::uint64_t>(into.size(), to_skip_)));
    if (got.status == read_status::end) {
      failure_ = "'" + name_ + "' ends at byte " + std::to_string(skip_target_ - to_skip_) +
                 ", before the saved position at byte " + std::to_string(skip_target_);
      return {read_status::failed, 0};
    }
    if (got.status != read_status::data) return got;
    to_skip_ -= got.bytes;
  }
  if (expected_.has_value() && head_.digest(expected_->bytes) != expected_->digest) {
    failure_ = "'" + name_ + "' does not begin as the input that the position was saved for";
    return {read_status::failed, 0};
  }
  return read_some(into);
}

void fd_reader::wait(veltrix::time_point until) const {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(until - veltrix::steady_clock::now());
  if (left.count() > 0) static_cast<void>(readable(static_cast<int>(left.count())));
}

std::string fd_reader::start_after(const veltrix::input_position& place) {
  if (!regular_) {
    to_skip_ = skip_target_ = place.bytes;
    return {};
  }
  const auto there = size();
  if (!there.has_value() || *there < place.bytes) {
    return "'" + name_ + "' has " + std::to_string(there.value_or(0)) +
           " bytes, fewer than the saved position at byte " + std::to_string(place.bytes);
  }
  std::string head(std::min<std::uint64_t>(*there, input_head::most_bytes), '\0');
  const ::ssize_t got = ::pread(descriptor_, head.data(), head.size(), 0);
  head.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  head_.add(head);
  if (expected_.has_value() && head_.digest(expected_->bytes) != expected_->digest) {
    return "'" + name_ + "' does not begin as the file that the position was saved for";
  }
  if (::lseek(descriptor_, static_cast<::off_t>(place.bytes), SEEK_SET) < 0) {
    return "cannot seek in '" + name_ + "': " + errno_text(errno);
  }
  return {};
}

std::optional<std::uint64_t> fd_reader::size() const {
  struct ::stat about{};
  if (!regular_ || ::fstat(descriptor_, &about) != 0) return std::nullopt;
  return static_cast<std::uint64_t>(about.st_size);
}

// --- generate_reader -----------------------------------------------------------------------------

generate_reader::generate_reader(const generator_options& options) : options_(options) {
  stride_ = options_.keys / 2 + 1 + options_.seed % options_.keys;
  while (std::gcd(stride_, options_.keys) != 1)
    ++stride_;
  stride_ %= options_.keys;
  if (options_.keys == 1) stride_ = 0;
  set_second(0);
}

void generate_reader::set_second(std::uint64_t second) {
  constexpr std::int64_t start_us = 1'735'689'600'000'000;  // 2025-01-01T00:00:00Z
  second_ = second;
  time_ = veltrix::format_time(start_us + static_cast<std::int64_t>(second) * 1'000'000);
  time_.back() = '.';
}

std::string generate_reader::start_after(const veltrix::input_position& place) {
  next_ = place.lines;
  round_ = next_ / options_.keys;
  in_round_ = next_ % options_.keys;
  const auto wide = static_cast<unsigned long long>(in_round_);
  __extension__ using product = unsigned __int128;
  key_ = static_cast<std::uint64_t>(static_cast<product>(wide) * stride_ % options_.keys);
  return {};
}

std::uint64_t generate_reader::digest(std::uint64_t) const {
  std::uint64_t hash = veltrix::detail::mix(options_.keys, 1);
  hash = veltrix::detail::mix(options_.event_bytes, hash);
  return veltrix::detail::mix(options_.seed, hash);
}

namespace {

void append_number(std::string& out, std::uint64_t number) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out.append(digits, static_cast<std::size_t>(end - digits));
}

}  // namespace

void generate_reader::make_line() {
  if (next_ / 1000 != second_) set_second(next_ / 1000);
  const std::uint64_t millisecond = next_ % 1000;
  line_.assign(R"({"id":)");
  append_number(line_, next_ + 1);
  line_.append(R"(,"ts":")").append(time_);
  line_.push_back(static_cast<char>('0' + millisecond / 100));
  line_.push_back(static_cast<char>('0' + millisecond / 10 % 10));
  line_.push_back(static_cast<char>('0' + millisecond % 10));
  line_.append(R"(Z","key":"k)");
  append_number(line_, key_);
  line_.append(R"(","seq":)");
  append_number(line_, round_ + 1);
  constexpr std::string_view filler = R"(,"data":"")";
  const std::size_t bare = line_.size() + filler.size() + 1;  // with the brace
  if (bare < options_.event_bytes) {
    line_.append(filler.substr(0, filler.size() - 1));
    line_.append(options_.event_bytes - bare, 'x').push_back('"');
  }
  line_.append("}\n");
  ++next_;
  key_ += stride_;
  if (key_ >= options_.keys) key_ -= options_.keys;
  if (++in_round_ == options_.keys) {
    in_round_ = 0;
    key_ = 0;
    ++round_;
  }
}

read_result generate_reader::read(std::span<char> into) {
  std::size_t given = 0;
  while (given < into.size()) {
    if (line_at_ == line_.size()) {
      if (options_.count != 0 && next_ >= options_.count) break;
      make_line();
      line_at_ = 0;
    }
    const std::size_t part = std::min(into.size() - given, line_.size() - line_at_);
    std::memcpy(into.data() + given, line_.data() + line_at_, part);
    given += part;
    line_at_ += part;
  }
  return given == 0 ? read_result{read_status::end, 0} : read_result{read_status::data, given};
}

}  // namespace veltrix_worker
