// See ranks.h for the contract and the threading rule.
#include "graph/ranks.h"

#include <bit>

namespace ebbtide {

void IdRanks::add(NodeId id) {
  const size_t b = id >> kBits;
  if (b >= blocks_.size()) blocks_.resize(b + 1);
  if (blocks_[b] == nullptr) blocks_[b] = std::make_unique<Block>();
  blocks_[b]->bits[id >> 6 & (kWords - 1)] |= uint64_t{1} << (id & 63);
}

void IdRanks::close() {
  uint32_t before = 0;
  for (const auto& block : blocks_) {
    if (block == nullptr) continue;
    for (size_t w = 0; w < kWords; w++) {
      block->before[w] = before;
      before += static_cast<uint32_t>(std::popcount(block->bits[w]));
    }
  }
}

}  // namespace ebbtide
