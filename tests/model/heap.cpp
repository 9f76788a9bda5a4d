// SPDX-License-Identifier: BSL-1.0
#include "model/heap.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "model/engine.hpp"

namespace veltrix_model {

constinit execution_heap heap;

namespace {

/// Stands before each block.
struct block_head {
  std::uint32_t bytes;
  std::uint32_t state;
  std::uint64_t number;
};

constexpr std::uint32_t in_use = 0x4c495645, given_back = 0x44454144;
constexpr int freed_byte = 0xdd;
// The same place in every process, so that a replay sees the same addresses.
void* const wanted_base = reinterpret_cast<void*>(std::uintptr_t{0x2f0000000000});

}  // namespace

void execution_heap::begin(bool keeps, std::uint64_t fail_at) noexcept {
  if (base_ == nullptr) {
    void* const memory = ::mmap(wanted_base, capacity, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    base_ = static_cast<std::byte*>(memory);
  }
  used_ = kept_;
  count_ = number_ = 0;
  live_ = 0;
  fail_at_ = fail_at;
  spared_ = 0;
  active_ = true;
  keeps_ = keeps;
}

void execution_heap::end() noexcept {
  active_ = false;
  if (keeps_) kept_ = (used_ + 63) & ~std::size_t{63};
}

void* execution_heap::allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (spared_ == 0 && ++count_ == fail_at_) return nullptr;
  if (alignment < 16) alignment = 16;
  const std::size_t start = (used_ + sizeof(block_head) + alignment - 1) & ~(alignment - 1);
  if (start + bytes > capacity) {
    the.fail("an execution used more than %zu MiB", capacity >> 20);
  }
  auto* const head = reinterpret_cast<block_head*>(base_ + start) - 1;
  *head = {static_cast<std::uint32_t>(bytes), in_use, ++number_};
  used_ = start + bytes;
  ++live_;
  return base_ + start;
}

void execution_heap::free(void* memory) noexcept {
  auto* const head = static_cast<block_head*>(memory) - 1;
  if (!active_) return;  // kept from the first execution of a search, or an abandoned one's
  if (head->state == given_back) {
    the.fail("allocation %llu was freed twice", static_cast<unsigned long long>(head->number));
  }
  if (head->state != in_use) the.fail("freed memory that was never allocated");
  head->state = given_back;
  std::memset(memory, freed_byte, head->bytes);
  if (is_fresh(memory)) --live_;
}

const char* execution_heap::describe_leak() const noexcept {
  if (live_ == 0) return nullptr;
  static char text[200];
  std::size_t at = kept_;
  while (at < used_) {  // the first block that is still in use
    const auto* const head = reinterpret_cast<const block_head*>(base_ + at);
    if (head->state == in_use && head->number != 0 && head->number <= number_) {
      std::snprintf(text, sizeof text, "leak: %zu blocks, the first is allocation %llu of %u bytes",
                    live_, static_cast<unsigned long long>(head->number), head->bytes);
      return text;
    }
    at += 16;
  }
  std::snprintf(text, sizeof text, "leak: %zu blocks", live_);
  return text;
}

}  // namespace veltrix_model

namespace {

using veltrix_model::heap;

void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (heap.active() && veltrix_model::the.running()) return heap.allocate(bytes, alignment);
  if (bytes == 0) bytes = 1;
  return alignment <= 16
             ? std::malloc(bytes)
             : std::aligned_alloc(alignment, (bytes + alignment - 1) & ~(alignment - 1));
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  void* const memory = allocate(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void give_back(void* memory) noexcept {
  if (memory == nullptr) return;
  if (heap.owns(memory)) {
    heap.free(memory);
  } else {
    std::free(memory);
  }
}

}  // namespace

void* operator new(std::size_t bytes) {
  return allocate_or_throw(bytes, 16);
}
void* operator new[](std::size_t bytes) {
  return allocate_or_throw(bytes, 16);
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, 16);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, 16);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  give_back(memory);
}
void operator delete[](void* memory) noexcept {
  give_back(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  give_back(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  give_back(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  give_back(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  give_back(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  give_back(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  give_back(memory);
}
