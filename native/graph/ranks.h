// Ranks of ids within a set: for loops that need small dense numbers instead of ids that may be far apart.
//
// Contract: `add` ascending, then `close`, then `rankOf`. Memory: 12 bytes for each 64 ids, in blocks of 65,536
// that have at least one. Threads: one at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/types.h"

namespace ebbtide {

class IdRanks {
 public:
  static constexpr uint32_t kNone = 0xffffffff;

  void add(NodeId id);
  void close();
  // The number of ids in the set below this one; kNone when it is not in the set.
  uint32_t rankOf(NodeId id) const {
    const size_t b = id >> kBits;
    if (b >= blocks_.size() || blocks_[b] == nullptr) return kNone;
    const uint32_t w = id >> 6 & (kWords - 1);
    const uint64_t word = blocks_[b]->bits[w];
    const uint64_t bit = uint64_t{1} << (id & 63);
    if ((word & bit) == 0) return kNone;
    return blocks_[b]->before[w] + static_cast<uint32_t>(__builtin_popcountll(word & (bit - 1)));
  }

 private:
  static constexpr unsigned kBits = 16;
  static constexpr uint32_t kWords = (1u << kBits) / 64;
  // Which of 65,536 ids are in the set, and how many precede each word.
  struct Block {
    std::array<uint64_t, kWords> bits{};
    std::array<uint32_t, kWords> before{};
  };

  std::vector<std::unique_ptr<Block>> blocks_;
};

}  // namespace ebbtide
