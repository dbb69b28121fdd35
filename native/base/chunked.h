// A growing list of words in chunks of 256 KiB. Growing never moves existing words: a vector of some million words
// that doubles while a lock is held would stop the writers for milliseconds.
//
// Contract: bad_alloc when there is no memory, with the list unchanged or with a part of what was to be appended.
// Threads: none of its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

namespace ebbtide {

class ChunkedWords {
 public:
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  uint32_t operator[](size_t i) const { return chunks_[i >> kBits][i & (kWords - 1)]; }

  void append(std::span<const uint32_t> words) {
    while (!words.empty()) {
      if (size_ >> kBits == chunks_.size()) chunks_.push_back(std::unique_ptr<uint32_t[]>(new uint32_t[kWords]));
      const size_t at = size_ & (kWords - 1);
      const size_t n = std::min(words.size(), kWords - at);
      std::memcpy(chunks_[size_ >> kBits].get() + at, words.data(), n * sizeof(uint32_t));
      size_ += n;
      words = words.subspan(n);
    }
  }
  void push(uint32_t word) {
    const size_t at = size_ & (kWords - 1);
    if (at == 0) append({&word, 1});
    else chunks_[size_++ >> kBits][at] = word;
  }

  // Removes words from the end, at most `max` (at least one unless the list is empty); returns how many.
  size_t take(uint32_t* out, size_t max) {
    if (size_ == 0) return 0;
    const size_t inChunk = (size_ - 1) % kWords + 1;
    const size_t n = std::min(max, inChunk);
    size_ -= n;
    std::memcpy(out, chunks_[size_ >> kBits].get() + (size_ & (kWords - 1)), n * sizeof(uint32_t));
    // One chunk stays, so that a list that grows and shrinks does not allocate each time.
    if (chunks_.size() > (size_ >> kBits) + 2) chunks_.pop_back();
    return n;
  }

 private:
  static constexpr unsigned kBits = 16;
  static constexpr size_t kWords = size_t{1} << kBits;

  std::vector<std::unique_ptr<uint32_t[]>> chunks_;
  size_t size_ = 0;
};

}  // namespace ebbtide
