// A copy of an array that came from outside, for a thread that reads it while its owner may change the original.
//
// Contract: never changes. Large copies are in huge pages: on the thread that makes them, thousands of page faults
// would cost more than the copying. bad_alloc when there is no memory. Threads: any may read it.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "base/pages.h"

namespace ebbtide {

template <typename T>
class Copied {
 public:
  Copied() = default;
  Copied(std::span<const T> from) : size_(from.size()) {
    if (from.size_bytes() < kLarge) {
      few_.assign(from.begin(), from.end());
    } else {
      many_ = Pages(from.size_bytes(), true);
      std::memcpy(many_.as<T>(), from.data(), from.size_bytes());
    }
  }
  Copied(const std::vector<T>& from) : Copied(std::span<const T>(from)) {}

  size_t size() const { return size_; }
  const T* data() const { return many_.as<T>() != nullptr ? many_.as<T>() : few_.data(); }
  const T& operator[](size_t i) const { return data()[i]; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  operator std::span<const T>() const { return {data(), size_}; }

 private:
  static constexpr size_t kLarge = 1 << 20;

  std::vector<T> few_;
  Pages many_;
  size_t size_ = 0;
};

}  // namespace ebbtide
