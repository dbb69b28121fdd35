// The order in which a collection removes its candidates: referrers before what they refer to.
//
// Contract: level order. First, ascending, the candidates that no other candidate refers to; then, ascending, those
// whose last referrer was in the level before; and so on. Members of a cycle, and what only they lead to, come
// last, ascending. Edges are copied in first, so that sorting can run concurrently with changes of the graph.
// Memory: about 24 bytes a candidate and 4 an edge between two, plus 1/4 byte an id.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/chunked.h"
#include "graph/ranks.h"
#include "base/types.h"

namespace ebbtide {

class RemovalOrder {
 public:
  // First all candidates, ascending.
  void add(NodeId id) {
    ranks_.add(id);
    ids_.push(id);
  }
  void closeIds() { ranks_.close(); }
  // Then, for each candidate, in this order, its edges' targets, and `next`.
  size_t size() const { return ids_.size(); }
  NodeId id(size_t i) const { return ids_[i]; }
  void target(NodeId to);
  void next() { ends_.push(static_cast<uint32_t>(targets_.size())); }

  // Then sorts, visiting up to `most` candidates and edges per call; returns true when everything is sorted.
  bool sort(size_t most);
  std::vector<NodeId> take() { return std::move(order_); }

 private:
  enum class Phase { kStart, kReferrers, kFirst, kLevels, kPlaces };

  void begin(Phase phase) {
    phase_ = phase;
    at_ = 0;
  }
  void follow(size_t most);
  void visit(uint32_t place, uint32_t level);
  void placeLevels();

  ChunkedWords ids_;
  IdRanks ranks_;
  ChunkedWords ends_;     // of each candidate's targets
  ChunkedWords targets_;  // indices in ids_

  Phase phase_ = Phase::kStart;
  size_t at_ = 0;                    // where the phase continues
  uint32_t edge_ = 0;                // and how many of the candidate's targets are done
  std::vector<uint32_t> referrers_;  // by index: referrers that are not placed yet
  std::vector<uint32_t> levels_;     // by index; kNone as long as there are referrers
  std::vector<uint32_t> queue_;      // indices, level by level
  std::vector<uint32_t> starts_;     // by level: number of candidates; finally, the position of its next one
  std::vector<NodeId> order_;
};

}  // namespace ebbtide
