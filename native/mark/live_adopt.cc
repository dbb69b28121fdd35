// Live marks from a checkpoint. See live.h for the contract, docs/proof.md for why no claim of a checkpoint can lead to a
// removal: counts are not read, they follow from the graph and from what the marks say, and they must fit the marks.
#include <algorithm>

#include "mark/live.h"

namespace ebbtide {

std::shared_ptr<LiveMarks> LiveMarks::adopt(Graph& graph, const SavedMarks& saved, std::span<const NodeId> flatSources) {
  const auto live = std::make_shared<LiveMarks>(graph, saved.now, LiveFault::kNone);
  try {
    if (live->countFrom(saved, flatSources) && !live->isBroken()) return live;
  } catch (const std::bad_alloc&) {
  }
  live->detach();
  return nullptr;
}

// Begins with all nodes marked plain, and all in-edges counted, which is nearly right; then takes back what unmarked nodes
// and flat edges have in that.
bool LiveMarks::countFrom(const SavedMarks& saved, std::span<const NodeId> flatSources) {
  size_t uncounted = expandAll();
  for (const NodeId id : saved.unmarked) {
    const uint32_t state = stateOf(id, kPlain);
    if (!graph_.exists(id)) return false;
    if (cells_.count(state) == 0) uncounted--;
    setExpanded(state, false);
  }
  // All that are marked must have a count; below, one that comes to none is found.
  if (uncounted > 0) return false;
  for (const NodeId id : saved.flat) {
    if (!graph_.exists(id)) return false;
    setExpanded(stateOf(id, kFlat), true);
  }

  bool fits = true;
  const auto uncount = [&](NodeId id, uint32_t times) {
    const uint32_t state = stateOf(id, kPlain);
    fits &= cells_.countDown(state, times).has_value() &&
            (cells_.count(state) > 0 || (cells_.flags(state) & LiveCells::kExpanded) == 0);
  };
  const auto countFlat = [&](NodeId id, uint32_t times) {
    fits &= (cells_.countUp(stateOf(id, kFlat), times) & LiveCells::kExpanded) != 0;
  };
  for (const NodeId id : saved.unmarked) {
    graph_.edges().forEach(*graph_.find(id), [&](uint32_t word, uint32_t times) {
      if (edgeKind(word) != kFlatEdge) uncount(edgeTarget(word), times);
    });
  }
  for (const NodeId id : flatSources) {
    const bool isPlain = (marksOf(id) & kPlain) != 0;
    graph_.edges().forEach(*graph_.find(id), [&](uint32_t word, uint32_t times) {
      if (edgeKind(word) != kFlatEdge) return;
      uncount(edgeTarget(word), times);
      if (isPlain) countFlat(edgeTarget(word), times);
    });
  }
  for (const NodeId id : saved.flat) {
    graph_.edges().forEach(*graph_.find(id), [&](uint32_t word, uint32_t times) {
      if (edgeKind(word) == kStructural) countFlat(edgeTarget(word), times);
    });
  }
  for (const NodeId id : saved.flat) fits &= cells_.count(stateOf(id, kFlat)) > 0;
  for (const NodeId id : saved.unmarked) fits &= cells_.count(stateOf(id, kPlain)) == 0;
  if (!fits) return false;
  keepExpiries();
  scan_ = Scan::kDone;
  return true;
}

// Marks all nodes plain. Returns how many have no count. Nearly all of a large opening's time for marks goes here.
size_t LiveMarks::expandAll() {
  size_t uncounted = 0;
  std::array<std::array<uint32_t, 2>, 32> byType{};  // and by kPresent
  for (size_t b = 0; b < graph_.blockCount(); b++) {
    const Graph::Block* block = graph_.blockAt(b);
    if (block == nullptr) continue;
    const auto first = static_cast<NodeId>(b << kBlockBits);
    uint16_t* const cells = cells_.row(stateOf(first, kPlain));
    graph_.forEach(first, first + kBlockIds, [&](NodeId id) {
      const Node& node = block->nodes()[id & kBlockMask];
      const uint32_t flags = node.flags();
      static_assert(kPresent == 1);
      const uint32_t isPresent = flags & kPresent;
      byType[typeOf(flags)][isPresent]++;
      uint32_t own = LiveCells::kExpanded | isPresent * LiveCells::kTyped;
      if ((flags & kRoot) == 0 && node.inDegree < 255) {
        cells[id & kBlockMask] = static_cast<uint16_t>(own << 8 | node.inDegree);
        uncounted += node.inDegree == 0 ? 1 : 0;
        return;
      }
      const bool isRoot = graph_.isRoot(id, now_);
      if (isRoot) own |= LiveCells::kRooted;
      const uint32_t count = graph_.inDegree(id) + (isRoot ? 1 : 0);
      cells_.set(stateOf(id, kPlain), count, own);
      uncounted += count == 0 ? 1 : 0;
    });
  }
  for (size_t type = 0; type < byType.size(); type++) byType_[type] = byType[type][1];
  marked_ = graph_.nodeCount();
  return uncounted;
}

// In order, so that the set grows at its end.
void LiveMarks::keepExpiries() {
  std::vector<std::pair<int64_t, NodeId>> expiring;
  graph_.expiries().forEach([&](NodeId id, int64_t expiry) {
    if ((graph_.flags(id) & kRoot) != 0) expiring.emplace_back(expiry, id);
  });
  std::sort(expiring.begin(), expiring.end());
  for (const auto& root : expiring) {
    expiring_.insert(expiring_.end(), root);
    expiries_.at(root.second) = root.first;
  }
}

}  // namespace ebbtide
