// See order.h for the contract and the threading rule.
#include "order.h"

#include <algorithm>

namespace ebbtide {

void RemovalOrder::target(NodeId to) {
  const uint32_t i = ranks_.rankOf(to);
  if (i != IdRanks::kNone) targets_.push(i);
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
