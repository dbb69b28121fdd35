// The order in which a collection removes its candidates: referrers before what they refer to.
//
// Contract: level order. First, ascending, the candidates no other candidate refers to; then, ascending, those whose
// last referrer went with the level before; and so on. Members of a cycle, and what only they lead to, come last,
// ascending. src/gc/graph-order.ts is the twin. Edges are copied in first, so that sorting is free to run beside
// changes of the graph. Memory: about 16 bytes a candidate and 4 an edge between two, plus 1/4 byte an id.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "chunked.h"
#include "ranks.h"
#include "types.h"

namespace ebbtide {

class RemovalOrder {
 public:
  // First all candidates, ascending.
  void add(NodeId id) {
    ranks_.add(id);
    ids_.push(id);
  }
  void closeIds() { ranks_.close(); }
  // Then, for each candidate in turn, its edges' targets, and `next`.
  size_t size() const { return ids_.size(); }
  NodeId id(size_t i) const { return ids_[i]; }
  void target(NodeId to);
  void next() { ends_.push(static_cast<uint32_t>(targets_.size())); }

  std::vector<NodeId> sort();

 private:
  ChunkedWords ids_;
  IdRanks ranks_;
  ChunkedWords ends_;     // of each candidate's targets
  ChunkedWords targets_;  // places in ids_
};

}  // namespace ebbtide
