// See order.h for the contract and the threading rule.
#include "order.h"

namespace ebbtide {

namespace {

constexpr uint32_t kNone = 0xffffffff;

}  // namespace

void RemovalOrder::target(NodeId to) {
  const uint32_t i = ranks_.rankOf(to);
  if (i != IdRanks::kNone) targets_.push(i);
}

bool RemovalOrder::sort(size_t most) {
  for (; most > 0; most--) {
    if (sortOne()) return true;
  }
  return false;
}

// A candidate's level is one more than the highest of its referrers'. Placing all by their levels, ascending, needs no
// comparing, and every step is as short as the others.
bool RemovalOrder::sortOne() {
  const size_t n = ids_.size();
  switch (phase_) {
    case Phase::kStart:
      referrers_.assign(n, 0);
      levels_.assign(n, kNone);
      queue_.reserve(n);
      order_.resize(n);
      begin(Phase::kReferrers);
      break;
    case Phase::kReferrers:
      if (at_ == targets_.size()) begin(Phase::kFirst);
      else referrers_[targets_[at_++]]++;
      break;
    case Phase::kFirst:
      if (at_ == n) {
        begin(Phase::kLevels);
        break;
      }
      if (referrers_[at_] == 0) visit(static_cast<uint32_t>(at_), 0);
      at_++;
      break;
    case Phase::kLevels: {
      if (at_ == queue_.size()) {
        uint32_t start = 0;
        for (uint32_t& size : sizes_) start += std::exchange(size, start);
        sizes_.push_back(start);
        begin(Phase::kPlaces);
        break;
      }
      const uint32_t i = queue_[at_];
      const uint32_t edge = (i == 0 ? 0 : ends_[i - 1]) + edge_++;
      if (edge == ends_[i]) {
        at_++;
        edge_ = 0;
        break;
      }
      const uint32_t to = targets_[edge];
      if (--referrers_[to] == 0) visit(to, levels_[i] + 1);
      break;
    }
    case Phase::kPlaces:
      if (at_ == n) {
        begin(Phase::kSorted);
        return true;
      }
      order_[sizes_[levels_[at_] == kNone ? sizes_.size() - 1 : levels_[at_]]++] = ids_[at_];
      at_++;
      break;
    case Phase::kSorted:
      return true;
  }
  return false;
}

void RemovalOrder::visit(uint32_t place, uint32_t level) {
  levels_[place] = level;
  if (level == sizes_.size()) sizes_.push_back(0);
  sizes_[level]++;
  queue_.push_back(place);
}

}  // namespace ebbtide
