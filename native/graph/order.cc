// See order.h for the contract and the threading rule.
#include "graph/order.h"

namespace ebbtide {

namespace {

constexpr uint32_t kNone = 0xffffffff;

}  // namespace

void RemovalOrder::target(NodeId to) {
  const uint32_t i = ranks_.rankOf(to);
  if (i != IdRanks::kNone) targets_.push(i);
}

// A candidate's level is one more than the highest of its referrers'. Placing all by their levels, ascending, needs
// no comparisons, and can pause anywhere.
bool RemovalOrder::sort(size_t most) {
  const size_t n = ids_.size();
  // Where the phase ends, or its share of this call.
  const auto end = [&](size_t all) { return all - at_ > most ? at_ + most : all; };
  switch (phase_) {
    case Phase::kStart:
      referrers_.assign(n, 0);
      levels_.assign(n, kNone);
      queue_.reserve(n);
      order_.resize(n);
      phase_ = Phase::kReferrers;
      return false;
    case Phase::kReferrers:
      for (const size_t to = end(targets_.size()); at_ < to; at_++) referrers_[targets_[at_]]++;
      if (at_ == targets_.size()) begin(Phase::kFirst);
      return false;
    case Phase::kFirst:
      for (const size_t to = end(n); at_ < to; at_++) {
        if (referrers_[at_] == 0) visit(static_cast<uint32_t>(at_), 0);
      }
      if (at_ == n) begin(Phase::kLevels);
      return false;
    case Phase::kLevels:
      follow(most);
      if (at_ < queue_.size()) return false;
      placeLevels();
      begin(Phase::kPlaces);
      return false;
    case Phase::kPlaces:
      for (const size_t to = end(n); at_ < to; at_++) {
        order_[starts_[levels_[at_] == kNone ? starts_.size() - 1 : levels_[at_]]++] = ids_[at_];
      }
      return at_ == n;
  }
  return true;
}

// Removes candidates of the queue, and queues those without a referrer left.
void RemovalOrder::follow(size_t most) {
  for (; at_ < queue_.size(); at_++) {
    const uint32_t i = queue_[at_];
    const uint32_t first = i == 0 ? 0 : ends_[i - 1];
    for (; first + edge_ < ends_[i]; edge_++) {
      if (most-- == 0) return;
      const uint32_t to = targets_[first + edge_];
      if (--referrers_[to] == 0) visit(to, levels_[i] + 1);
    }
    edge_ = 0;
    if (most-- == 0) {
      at_++;
      return;
    }
  }
}

void RemovalOrder::visit(uint32_t place, uint32_t level) {
  levels_[place] = level;
  if (level == starts_.size()) starts_.push_back(0);
  starts_[level]++;
  queue_.push_back(place);
}

// Turns the number of candidates of each level into the position of its first one; those without a level come last.
void RemovalOrder::placeLevels() {
  uint32_t start = 0;
  for (uint32_t& count : starts_) start += std::exchange(count, start);
  starts_.push_back(start);
}

}  // namespace ebbtide
