// See order.h for the contract and the threading rule.
#include "order.h"

#include <algorithm>
#include <bit>

namespace ebbtide {

void RemovalOrder::add(NodeId id) {
  const size_t b = id >> kBits;
  if (b >= blocks_.size()) blocks_.resize(b + 1);
  if (blocks_[b] == nullptr) blocks_[b] = std::make_unique<Block>();
  const uint32_t word = id >> 6 & ((1u << (kBits - 6)) - 1);
  blocks_[b]->bits[word] |= uint64_t{1} << (id & 63);
  ids_.push(id);
}

void RemovalOrder::closeIds() {
  uint32_t before = 0;
  for (const auto& block : blocks_) {
    if (block == nullptr) continue;
    for (size_t w = 0; w < block->bits.size(); w++) {
      block->before[w] = before;
      before += static_cast<uint32_t>(std::popcount(block->bits[w]));
    }
  }
}

uint32_t RemovalOrder::indexOf(NodeId id) const {
  const size_t b = id >> kBits;
  if (b >= blocks_.size() || blocks_[b] == nullptr) return kNone;
  const uint32_t w = id >> 6 & ((1u << (kBits - 6)) - 1);
  const uint64_t word = blocks_[b]->bits[w];
  const uint64_t bit = uint64_t{1} << (id & 63);
  if ((word & bit) == 0) return kNone;
  return blocks_[b]->before[w] + static_cast<uint32_t>(std::popcount(word & (bit - 1)));
}

void RemovalOrder::target(NodeId to) {
  const uint32_t i = indexOf(to);
  if (i != kNone) targets_.push(i);
}

std::vector<NodeId> RemovalOrder::sort() {
  const size_t n = ids_.size();
  std::vector<uint32_t> referrers(n, 0);
  for (size_t e = 0; e < targets_.size(); e++) referrers[targets_[e]]++;

  std::vector<NodeId> order;
  order.reserve(n);
  std::vector<bool> placed(n, false);
  std::vector<uint32_t> level;
  std::vector<uint32_t> following;
  for (uint32_t i = 0; i < n; i++) {
    if (referrers[i] == 0) level.push_back(i);
  }
  while (!level.empty()) {
    following.clear();
    for (const uint32_t i : level) {
      placed[i] = true;
      order.push_back(ids_[i]);
      for (uint32_t e = i == 0 ? 0 : ends_[i - 1]; e < ends_[i]; e++) {
        if (--referrers[targets_[e]] == 0) following.push_back(targets_[e]);
      }
    }
    std::sort(following.begin(), following.end());
    level.swap(following);
  }
  for (size_t i = 0; i < n; i++) {
    if (!placed[i]) order.push_back(ids_[i]);
  }
  return order;
}

}  // namespace ebbtide
