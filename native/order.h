// The order in which a collection removes its candidates: referrers before what they refer to.
//
// Contract: level order. First, ascending, the candidates no other candidate refers to; then, ascending, those whose
// last referrer went with the level before; and so on. Members of a cycle, and what only they lead to, come last,
// ascending. src/gc/graph-order.ts is the twin. Edges are copied in first, so that sorting is free to run beside
// changes of the graph. Memory: about 16 bytes a candidate and 4 an edge between two, plus 1/4 byte an id.
//
// Threads: one at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "chunked.h"
#include "types.h"

namespace ebbtide {

class RemovalOrder {
 public:
  // First all candidates, ascending.
  void add(NodeId id);
  void closeIds();
  // Then, for each candidate in turn, its edges' targets, and `next`.
  size_t size() const { return ids_.size(); }
  NodeId id(size_t i) const { return ids_[i]; }
  void target(NodeId to);
  void next() { ends_.push(static_cast<uint32_t>(targets_.size())); }

  std::vector<NodeId> sort();

 private:
  static constexpr unsigned kBits = 16;
  // Candidates among 65,536 ids, and how many are before each word of them.
  struct Block {
    std::array<uint64_t, (1 << kBits) / 64> bits{};
    std::array<uint32_t, (1 << kBits) / 64> before{};
  };
  static constexpr uint32_t kNone = 0xffffffff;
  uint32_t indexOf(NodeId id) const;

  ChunkedWords ids_;
  std::vector<std::unique_ptr<Block>> blocks_;
  ChunkedWords ends_;     // of each candidate's targets
  ChunkedWords targets_;  // places in ids_
};

}  // namespace ebbtide
