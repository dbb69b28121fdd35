// What is true of every graph between two batches of ops, asserted by debug builds: the counts, the bits of existence, and
// what is kept beside the nodes agree with the nodes and their edges. Called by Graph::apply; reads all of a small graph.
#include "graph/graph.h"

#ifdef EBBTIDE_DEBUG

namespace ebbtide {

namespace {

// Beyond that each batch would cost too much.
constexpr NodeId kIdsChecked = 2048;

}  // namespace

// Whether edges lead to what exists, and in-degrees say how many do.
bool Graph::areEdgesExact() const {
  std::vector<uint64_t> inDegrees(limit_);
  bool exact = true;
  forEach(0, limit_, [&](NodeId id) {
    edges_.forEach(*find(id), [&](uint32_t word, uint32_t times) {
      const NodeId to = edgeTarget(word);
      if (exists(to)) inDegrees[to] += times;
      else exact = false;
    });
  });
  forEach(0, limit_, [&](NodeId id) {
    if (inDegree(id) != inDegrees[id]) exact = false;
  });
  return exact;
}

// Bytes with forged checksums give some graph, whose in-degrees are not to be relied on.
void Graph::afterLoad() { exact_ = limit_ <= kIdsChecked && areEdgesExact(); }

void Graph::assertInvariants() const {
  if (limit_ > kIdsChecked) return;
  EBBTIDE_ASSERT(!exact_ || areEdgesExact(), "edges lead to ids that exist, whose in-degrees count them");
  uint32_t existing = 0;
  uint32_t used = 0;
  uint64_t edges = 0;
  size_t expiring = 0;
  size_t wide = 0;
  std::array<size_t, kRare.size()> rare{};
  for (const auto& block : blocks_) {
    if (block != nullptr) used += block->used;
  }
  for (NodeId id = 0; id < limit_; id++) {
    const Node* node = find(id);
    if (!exists(id)) {
      EBBTIDE_ASSERT(node == nullptr || (node->flags() == 0 && node->degree == 0 && node->inDegree == 0),
                     "the node of an id that does not exist is empty");
      continue;
    }
    existing++;
    const uint32_t flags = node->flags();
    EBBTIDE_ASSERT(((flags & kExpires) != 0) == (expiries_.find(id) != nullptr), "a node has an expiry if its flag says so");
    expiring += (flags & kExpires) != 0;
    EBBTIDE_ASSERT(node->inDegree == 255 || wideInDegrees_.find(id) == nullptr, "a narrow in-degree has no wide one");
    wide += wideInDegrees_.find(id) != nullptr;
    for (size_t i = 0; i < kRare.size(); i++) {
      EBBTIDE_ASSERT(((flags & kRare[i]) != 0) == (rare_[i].find(id) != nullptr), "a rare flag is in its index");
      rare[i] += (flags & kRare[i]) != 0;
    }
    uint64_t degree = 0;
    edges_.forEach(*node, [&](uint32_t word, uint32_t times) {
      EBBTIDE_ASSERT(times > 0, "an edge is there as often as it is counted");
      EBBTIDE_ASSERT(edgeTarget(word) < kMaxNodes, "an edge leads to an id");
      degree += times;
    });
    EBBTIDE_ASSERT(degree == edges_.degree(*node), "a node's degree is the number of its edges");
    edges += degree;
  }
  EBBTIDE_ASSERT(existing == nodes_ && used == nodes_, "the nodes are counted");
  EBBTIDE_ASSERT(edges == edgeCount_, "the edges are counted");
  EBBTIDE_ASSERT(limit_ == 0 || exists(limit_ - 1), "the limit is beyond the highest id that exists");
  EBBTIDE_ASSERT(expiring == expiries_.size() && wide == wideInDegrees_.size(), "nothing is kept of a node that has gone");
  for (size_t i = 0; i < kRare.size(); i++) EBBTIDE_ASSERT(rare[i] == rare_[i].size(), "a rare flag's index has nothing else");
}

}  // namespace ebbtide

#endif
