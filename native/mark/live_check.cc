// Compares live marks: at a stretch with what a walk finds (see live.h; shares nothing with live.cc but its
// definitions), and beside the writers with marks that are counted anew (live_check.h).
#include "mark/live_check.h"

#include <algorithm>
#include <utility>

namespace ebbtide {

namespace {

constexpr size_t kMostWrong = 100;
// Compared in one step: some ten microseconds.
constexpr NodeId kComparedIds = 2048;
constexpr std::array<MarkBit, 2> kVariants = {kPlain, kFlat};

// What is reached, and how often from what is.
struct Walk {
  std::vector<uint8_t> reached;                    // bits of kPlain and kFlat, by id
  std::array<std::vector<uint32_t>, 2> counts;     // by variant and id
  std::vector<std::pair<NodeId, MarkBit>> open;

  void reach(NodeId id, MarkBit variant, uint32_t times) {
    counts[variant == kFlat ? 1 : 0][id] += times;
    if ((reached[id] & variant) != 0) return;
    reached[id] |= static_cast<uint8_t>(variant);
    open.emplace_back(id, variant);
  }
};

bool differ(const LiveMarks& live, const LiveMarks& second, NodeId id) {
  if (live.marksOf(id) != second.marksOf(id) || (live.isGarbage(id) && !live.isListed(id))) return true;
  return std::any_of(kVariants.begin(), kVariants.end(),
                     [&](MarkBit variant) { return live.countOf(id, variant) != second.countOf(id, variant); });
}

}  // namespace

bool LiveCheck::step() {
  if (live_->isBroken() || second_.isBroken()) return leave();
  if (!second_.isUpToDate()) {
    second_.step();
    return false;
  }
  if (!live_->isUpToDate()) {
    live_->step();
    return false;
  }
  if (live_->isDoubtful() || second_.isDoubtful() || live_->hasPins() || live_->now() != second_.now()) return leave();
  const NodeId limit = graph_.limit();
  graph_.forEach(next_, std::min(limit, next_ + kComparedIds), [this](NodeId id) {
    if (wrong_.size() < kMostWrong && differ(*live_, second_, id)) wrong_.push_back(id);
  });
  next_ = std::min(limit, next_ + kComparedIds);
  if (next_ < limit) return false;
  if (wrong_.empty() && (live_->byType() != second_.byType() || live_->marked() != second_.marked() ||
                         live_->garbageByType() != second_.garbageByType())) {
    wrong_.push_back(kMaxNodes);
  }
  isComplete_ = true;
  return true;
}

void LiveCheck::beforeBatch(std::span<const uint32_t> ops) {
  if (!second_.isBroken()) second_.beforeBatch(ops);
}

void LiveCheck::afterBatch(std::span<const uint32_t> ops, bool applied) try {
  if (!second_.isBroken()) second_.afterBatch(ops, applied);
} catch (const std::bad_alloc&) {
  second_.markBroken();
}

std::vector<NodeId> wrongLiveMarks(const Graph& graph, const LiveMarks& live) {
  Walk walk;
  walk.reached.resize(graph.limit());
  for (auto& counts : walk.counts) counts.resize(graph.limit());
  graph.forEach(0, graph.limit(), [&](NodeId id) {
    const uint32_t roots = (graph.isRoot(id, live.now()) ? 1 : 0) + (live.isPinned(id) ? 1 : 0);
    if (roots > 0) walk.reach(id, kPlain, roots);
  });
  while (!walk.open.empty()) {
    const NodeId id = walk.open.back().first;
    const MarkBit variant = walk.open.back().second;
    walk.open.pop_back();
    graph.edges().forEach(*graph.find(id), [&](uint32_t word, uint32_t times) {
      if (edgeKind(word) == kStructural) walk.reach(edgeTarget(word), variant, times);
      else if (variant == kPlain) walk.reach(edgeTarget(word), edgeKind(word) == kLabel ? kPlain : kFlat, times);
    });
  }
  std::vector<NodeId> wrong;
  std::array<uint32_t, 32> byType{};
  std::array<uint32_t, 32> garbage{};
  uint64_t marked = 0;
  graph.forEach(0, graph.limit(), [&](NodeId id) {
    bool isWrong = live.marksOf(id) != walk.reached[id] || (live.isGarbage(id) && !live.isListed(id));
    for (const MarkBit variant : kVariants) {
      isWrong |= live.countOf(id, variant) != walk.counts[variant == kFlat ? 1 : 0][id];
    }
    if (isWrong && wrong.size() < kMostWrong) wrong.push_back(id);
    constexpr uint32_t wanted = kPresent | kCollectible;
    if (walk.reached[id] == 0 && (graph.flags(id) & wanted) == wanted) garbage[typeOf(graph.flags(id))]++;
    if (walk.reached[id] == 0) return;
    marked++;
    if ((graph.flags(id) & kPresent) != 0) byType[typeOf(graph.flags(id))]++;
  });
  // Sums that are wrong though every node is right belong to no node.
  if (wrong.empty() && (byType != live.byType() || garbage != live.garbageByType() || marked != live.marked())) {
    wrong.push_back(kMaxNodes);
  }
  return wrong;
}

}  // namespace ebbtide
