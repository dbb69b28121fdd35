// A large zeroed block of memory, directly from the kernel and aligned to two megabytes, so that it can be in huge
// pages. Random access over hundreds of megabytes is mostly spent on address translation otherwise.
//
// Contract: untouched pages cost nothing. bad_alloc when there is no address space. Threads: none of its own.
// WebAssembly has neither a kernel nor huge pages; there it is a part of the linear memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#if !defined(__wasm__)
#include <sys/mman.h>
#endif

namespace ebbtide {

class Pages {
 public:
  Pages() = default;
  // `huge` asks for huge pages; the kernel may ignore it.
#if defined(__wasm__)
  Pages(size_t bytes, bool) : data_(std::calloc(bytes, 1)), bytes_(bytes) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Pages() { std::free(data_); }
#else
  Pages(size_t bytes, bool huge) : bytes_(bytes) {
    const size_t reserved = bytes + kAlign;
    void* got = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) throw std::bad_alloc();
    const auto start = reinterpret_cast<uintptr_t>(got);
    const uintptr_t aligned = (start + kAlign - 1) & ~(kAlign - 1);
    if (aligned > start) munmap(got, aligned - start);
    const uintptr_t end = (aligned + bytes + kPage - 1) & ~(kPage - 1);
    if (start + reserved > end) munmap(reinterpret_cast<void*>(end), start + reserved - end);
    data_ = reinterpret_cast<void*>(aligned);
    if (huge) madvise(data_, bytes, MADV_HUGEPAGE);
  }
  ~Pages() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }
#endif
  Pages(Pages&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  Pages& operator=(Pages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  static constexpr uintptr_t kAlign = 2 << 20;
  static constexpr uintptr_t kPage = 4096;

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace ebbtide
