// Compares live marks with what a walk finds. See live.h; shares nothing with live.cc but its definitions.
#include <utility>

#include "live.h"

namespace ebbtide {

namespace {

constexpr size_t kMostWrong = 100;
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

}  // namespace

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
  uint64_t marked = 0;
  graph.forEach(0, graph.limit(), [&](NodeId id) {
    bool isWrong = live.marksOf(id) != walk.reached[id] || (live.isGarbage(id) && !live.isListed(id));
    for (const MarkBit variant : kVariants) {
      isWrong |= live.countOf(id, variant) != walk.counts[variant == kFlat ? 1 : 0][id];
    }
    if (isWrong && wrong.size() < kMostWrong) wrong.push_back(id);
    if (walk.reached[id] == 0) return;
    marked++;
    if ((graph.flags(id) & kPresent) != 0) byType[typeOf(graph.flags(id))]++;
  });
  // Sums that are wrong though every node is right belong to no node.
  if (wrong.empty() && (byType != live.byType() || marked != live.marked())) wrong.push_back(kMaxNodes);
  return wrong;
}

}  // namespace ebbtide
