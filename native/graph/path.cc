// See path.h for the contract and the threading rule.
#include "graph/path.h"

#include <algorithm>

namespace ebbtide {

namespace {

constexpr uint32_t kNone = 0xffffffff;
constexpr size_t kBatch = 64;

// What a breadth-first search knows of each state: its predecessor, and whether that is final.
class Search {
 public:
  explicit Search(const Graph& graph) : graph_(graph), blocks_(graph.blockCount()) {}

  void begin(NodeId root) {
    predecessor(root << 1) = kNone;
    status(root << 1) = 1;
    level_.push_back(root << 1);
  }
  bool knows(uint32_t state) { return blockOf(state) != nullptr && status(state) != 0; }
  bool exhausted() const { return level_.empty(); }
  uint32_t predecessorOf(uint32_t state) { return predecessor(state); }

  void advance() {
    following_.clear();
    for (size_t at = 0; at < level_.size(); at += kBatch) {
      const std::span batch(level_.data() + at, std::min(kBatch, level_.size() - at));
      for (const uint32_t state : batch) graph_.table().prefetch(state >> 1);
      for (const uint32_t state : batch) graph_.edges().prefetch(*graph_.find(state >> 1));
      for (const uint32_t state : batch) expand(state);
    }
    for (const uint32_t state : following_) status(state) = 1;
    level_.swap(following_);
  }

 private:
  struct Block {
    std::unique_ptr<uint32_t[]> predecessor{new uint32_t[2 * kBlockIds]};
    std::unique_ptr<uint8_t[]> status = std::make_unique<uint8_t[]>(2 * kBlockIds);  // 1 final, 2 of the next level
  };
  static constexpr uint32_t kMask = 2 * kBlockIds - 1;

  Block* blockOf(uint32_t state) {
    const size_t b = state >> (kBlockBits + 1);
    return b < blocks_.size() ? blocks_[b].get() : nullptr;
  }
  Block& block(uint32_t state) {
    auto& found = blocks_[state >> (kBlockBits + 1)];
    if (found == nullptr) found = std::make_unique<Block>();
    return *found;
  }
  uint32_t& predecessor(uint32_t state) { return block(state).predecessor[state & kMask]; }
  uint8_t& status(uint32_t state) { return block(state).status[state & kMask]; }

  void expand(uint32_t from) {
    graph_.edges().forEach(*graph_.find(from >> 1), [&](uint32_t word, uint32_t) {
      const uint32_t kind = edgeKind(word);
      const bool flat = (from & 1) != 0;
      if (flat && kind != kStructural) return;
      const uint32_t to = edgeTarget(word) << 1 | (flat || kind == kFlatEdge ? 1u : 0u);
      uint8_t& known = status(to);
      if (known == 1) return;
      if (known == 0) {
        known = 2;
        predecessor(to) = from;
        following_.push_back(to);
      } else {
        predecessor(to) = std::min(predecessor(to), from);
      }
    });
  }

  const Graph& graph_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<uint32_t> level_;
  std::vector<uint32_t> following_;
};

}  // namespace

std::vector<NodeId> shortestPath(const Graph& graph, NodeId id, int64_t now) {
  if (!graph.exists(id)) return {};
  Search search(graph);
  graph.forEach(0, graph.limit(), [&](NodeId root) {
    if (graph.isRoot(root, now)) search.begin(root);
  });
  while (!search.exhausted() && !search.knows(id << 1) && !search.knows(id << 1 | 1)) search.advance();
  uint32_t state = search.knows(id << 1) ? id << 1 : id << 1 | 1;
  if (!search.knows(state)) return {};
  std::vector<NodeId> path;
  for (; state != kNone; state = search.predecessorOf(state)) path.push_back(state >> 1);
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace ebbtide
