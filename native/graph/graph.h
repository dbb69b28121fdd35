// The mutable graph: dense ids, flags, expiries, edges, in-degrees, and three bits of marks for each node. Rules of nodes
// and ops are those of src/engine/graph.ts.
//
// Contract: `apply` takes a whole batch or nothing. Memory is 8 bytes a node, 4 to 5 for each edge of a node that has
// more than one, and a hash entry for each expiry, rare flag and in-degree beyond 254. Blocks of ids exist only where
// ids are or were used. Marks mean nothing but during a run, which begins by wiping them (mark.h). No call recurses.
//
// Threads: none of its own. core.h runs one writer beside readers and makes them alternate. What the writer may
// ask meanwhile is const, and asks nodes for nothing but what it writes itself, and their flags (edges.h).
// Units: times in nanoseconds since 1970.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/debug.h"
#include "graph/edges.h"
#include "base/flat_map.h"
#ifdef EBBTIDE_DEBUG
#include "base/lock.h"
#endif
#include "base/pages.h"
#include "base/types.h"

namespace ebbtide {

class Graph;

inline constexpr unsigned kBlockBits = 18;
inline constexpr uint32_t kBlockIds = 1u << kBlockBits;
inline constexpr uint32_t kBlockMask = kBlockIds - 1;
inline constexpr uint32_t kBlockWords = kBlockIds / 64;

// Where nodes are, for loops that are worth it: a copy in a local variable stays in a register. Valid until an op is
// applied. The ids' blocks must exist, but for prefetching.
struct NodeTable {
  Node* const* blocks;
  size_t count;

  // For any id. The bits of existence follow a block's nodes.
  bool exists(NodeId id) const {
    const size_t b = id >> kBlockBits;
    if (b >= count || blocks[b] == nullptr) return false;
    const auto* bits = reinterpret_cast<const uint64_t*>(blocks[b] + kBlockIds);
    return (bits[(id & kBlockMask) >> 6] >> (id & 63) & 1) != 0;
  }

  Node& node(NodeId id) const { return blocks[id >> kBlockBits][id & kBlockMask]; }
  void prefetch(NodeId id) const { __builtin_prefetch(blocks[id >> kBlockBits] + (id & kBlockMask), 1); }
};

// Called before a node's flags, expiry, edges or in-degree change: for readers that work on an earlier state.
class GraphObserver {
 public:
  virtual ~GraphObserver() = default;
  virtual void beforeChange(NodeId id) = 0;
};

// A copy of the graph as it was when it was begun, taken in steps by a thread of its own.
class GraphCopy : public GraphObserver {
 public:
  explicit GraphCopy(Graph& graph) : graph_(graph) {}
  // Listens to the graph. Due, under the same lock, once it is made.
  virtual void attach();
  // Stops listening to the graph. Due, under the lock, before the copy is dropped; twice is harmless.
  virtual void detach();
  GraphCopy(const GraphCopy&) = delete;
  GraphCopy& operator=(const GraphCopy&) = delete;

  // Set to make the thread give up; never cleared.
  std::atomic<bool> cancelled{false};

 protected:
  Graph& graph_;
};

class Graph {
 public:
  struct Block {
    explicit Block(bool huge) : pages(kBytes, huge) {}
    Node* nodes() const { return pages.as<Node>(); }
    uint64_t* exists() const { return reinterpret_cast<uint64_t*>(nodes() + kBlockIds); }

    static constexpr size_t kBytes = kBlockIds * sizeof(Node) + kBlockIds / 8;
    Pages pages;
    uint32_t used = 0;
  };

  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Applies a batch of ops. GraphError, with the graph as before, when one of them is not possible.
  void apply(std::span<const uint32_t> ops);
  static size_t opLength(uint32_t code);  // words; 0 for an unknown code

  bool exists(NodeId id) const { return table().exists(id); }
  // Null when the id's block does not exist. The node of an id that does not exist is all zero.
  const Node* find(NodeId id) const {
    const size_t b = id >> kBlockBits;
    return b < bases_.size() && bases_[b] != nullptr ? &table().node(id) : nullptr;
  }
  uint32_t flags(NodeId id) const {
    const Node* node = find(id);
    return node == nullptr ? 0 : node->flags();
  }
  uint64_t degree(NodeId id) const {
    const Node* node = find(id);
    return node == nullptr ? 0 : edges_.degree(*node);
  }
  uint32_t inDegree(NodeId id) const;
  std::optional<int64_t> expiry(NodeId id) const;
  const FlatMap<int64_t>& expiries() const { return expiries_; }
  bool isRoot(NodeId id, int64_t now) const;
  bool isFreeable(NodeId id) const;

  uint32_t marks(NodeId id) const {
    const Node* node = find(id);
    return node == nullptr ? 0 : node->marks();
  }
  // Bits a node gets when it becomes present.
  void setAllocationMark(uint32_t bits) { allocationMark_ = bits; }

  const EdgeStore& edges() const { return edges_; }
  size_t blockCount() const { return blocks_.size(); }
  const Block* blockAt(size_t i) const { return i < blocks_.size() ? blocks_[i].get() : nullptr; }
  NodeTable table() const { return {bases_.data(), bases_.size()}; }

  // visit(id) for each existing id in [from, to), ascending.
  template <typename Visit>
  void forEach(NodeId from, NodeId to, Visit visit) const;

  std::vector<NodeId> takeFreeable();
  std::vector<NodeId> unused(uint64_t from, uint64_t max) const;
  std::vector<NodeId> withFlags(uint32_t flags) const;
  // Targets and kinds alternate, ascending; none when the node does not exist.
  std::vector<uint32_t> edgePairs(NodeId id) const;
  // For each id from `from` on, `count` of them at most: flags, number of edges, edge words ascending. Both 0 where there is no node.
  std::vector<uint32_t> rows(uint64_t from, uint64_t count) const;

  uint32_t nodeCount() const { return nodes_; }
  uint64_t edgeCount() const { return edgeCount_; }
  uint32_t limit() const { return limit_; }
  size_t bytes() const;

  // For the checkpoint: nodes, ascending; then their edges.
  class NodeLoader;
  void loadNode(NodeId id, uint32_t flags, uint32_t inDegree, int64_t expiry);
  uint32_t* loadEdges(NodeId from, uint32_t degree) {
    edgeCount_ += degree;
    Node& node = nodeAt(from);
    if (degree != 1) return edges_.reserve(node, degree);
    node.degree = 1;
    return &node.slot;
  }
  void loadBig(NodeId from, std::span<const uint32_t> words) {
    edgeCount_ += words.size();
    edges_.assign(nodeAt(from), words);
  }
  void listFreeable();

  void observe(GraphObserver* observer) {
    assertLocked();
    observers_.push_back(observer);
  }
  void unobserve(GraphObserver* observer) {
    assertLocked();
    std::erase(observers_, observer);
  }
  void clear();
  // How often it was cleared: also by a batch that could not be taken back.
  uint64_t clears() const { return clears_; }

#ifdef EBBTIDE_DEBUG
  // Of a graph that threads share: the lock that a caller must hold to change it.
  void guardedBy(const Mutex& mutex) { mutex_ = &mutex; }
  void assertLocked() const {
    EBBTIDE_ASSERT(mutex_ == nullptr || mutex_->isHeldHere(), "a change of the graph needs its lock");
  }
  void assertInvariants() const;
  void afterLoad();
#else
  void assertLocked() const {}
  void assertInvariants() const {}
  void afterLoad() {}
#endif

 private:
  struct BeforeImage {
    int64_t expiry;
    uint16_t flags;
    uint8_t marks;
    bool existed;
  };

  const Block* blockOf(NodeId id) const { return blockAt(id >> kBlockBits); }
  Node& nodeAt(NodeId id) { return table().node(id); }
  Block& makeBlock(NodeId id);
  void changing(NodeId id) {
    assertLocked();
    for (GraphObserver* observer : observers_) observer->beforeChange(id);
  }

  void applyOne(std::span<const uint32_t> op, size_t at, std::vector<BeforeImage>& before);
  void rollBack(std::span<const uint32_t> ops, size_t end, std::vector<BeforeImage>& before);
  BeforeImage stateOf(NodeId id) const;
  void opSet(NodeId id, uint32_t flags, int64_t expiry, std::vector<BeforeImage>& before);
  void set(NodeId id, uint32_t flags, int64_t expiry);
  void free(NodeId id);
  void addEdge(NodeId from, NodeId to, uint32_t kind);
  bool removeEdge(NodeId from, NodeId to, uint32_t kind);
  void setRare(NodeId id, uint32_t before, uint32_t after);
  void countIn(Node& node, NodeId id);
  void countOut(Node& node, NodeId id);
  void addFreeable(NodeId id) {
    if (isFreeable(id)) freeable_.push_back(id);
  }
  uint32_t limitBelow(NodeId id) const;

  // Flags that few nodes carry and collections ask for again and again: an index each.
  static constexpr std::array<uint32_t, 3> kRare = {kConditional, kConditionValue, kForeign};

  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Node*> bases_;  // the nodes of each block; null where there is none
  EdgeStore edges_;
  FlatMap<int64_t> expiries_;
  FlatMap<uint32_t> wideInDegrees_;  // exact counts of nodes with 255 and more
  std::array<FlatSet, kRare.size()> rare_;
  std::vector<NodeId> freeable_;
  std::vector<GraphObserver*> observers_;
  uint64_t edgeCount_ = 0;
  uint64_t clears_ = 0;
  uint32_t nodes_ = 0;
  uint32_t limit_ = 0;
  uint32_t allocationMark_ = 0;
#ifdef EBBTIDE_DEBUG
  bool areEdgesExact() const;
  const Mutex* mutex_ = nullptr;
  bool exact_ = true;
#endif
};

// Sets new nodes of one block, ascending, ten times as fast as one by one: for those with nothing kept elsewhere.
class Graph::NodeLoader {
 public:
  NodeLoader(Graph& graph, NodeId first) : graph_(graph), block_(graph.makeBlock(first)) {}
  ~NodeLoader() {
    block_.used += count_;
    graph_.nodes_ += count_;
    graph_.limit_ = std::max(graph_.limit_, end_);
  }
  NodeLoader(const NodeLoader&) = delete;
  NodeLoader& operator=(const NodeLoader&) = delete;

  static bool takes(uint32_t flags, uint32_t inDegree) {
    return (flags & (kExpires | kConditional | kConditionValue | kForeign)) == 0 && inDegree < 255;
  }
  void add(NodeId id, uint32_t flags, uint32_t inDegree) {
    block_.nodes()[id & kBlockMask] = {0, static_cast<uint16_t>(flags), 0, static_cast<uint8_t>(inDegree)};
    block_.exists()[(id & kBlockMask) >> 6] |= uint64_t{1} << (id & 63);
    count_++;
    end_ = id + 1;
  }

 private:
  Graph& graph_;
  Block& block_;
  uint32_t count_ = 0;
  NodeId end_ = 0;
};

inline void GraphCopy::attach() { graph_.observe(this); }
inline void GraphCopy::detach() { graph_.unobserve(this); }

template <typename Visit>
void Graph::forEach(NodeId from, NodeId to, Visit visit) const {
  while (from < to) {
    const Block* block = blockOf(from);
    if (block == nullptr) {
      from = (from | kBlockMask) + 1;
      continue;
    }
    const NodeId first = from & ~NodeId{63};
    uint64_t word = block->exists()[(from & kBlockMask) >> 6] & ~uint64_t{0} << (from & 63);
    if (to - first < 64) word &= (uint64_t{1} << (to - first)) - 1;
    for (; word != 0; word &= word - 1) visit(first + static_cast<NodeId>(__builtin_ctzll(word)));
    from = first + 64;
  }
}

}  // namespace ebbtide
