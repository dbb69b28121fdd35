// What would go if some nodes were removed: bytes that a set of nodes reaches, and those that nothing else keeps.
//
// Contract: the rules of `retained` in src/engine/graph.ts. Pure, over a snapshot of the graph (graph_snapshot.h). Time:
// once what the graph and the query have in nodes, edges and items; then, for each set, what it reaches and the edges into
// that. Worklists have each (node, variant) once. Nothing recurses. Memory beside the snapshot: 2 bytes a node, 8 a named
// item, 8 a node of the current set.
//
// Threads: none of its own. Units: bytes, as whole numbers below 2^53.
#pragma once

#include <span>
#include <vector>

#include "base/copied.h"
#include "graph/graph_snapshot.h"

namespace ebbtide {

// The query, as passed in.
struct RetainedQuery {
  static constexpr uint32_t kNoItem = 0xffffffff;

  int64_t now = 0;
  Copied<uint32_t> itemOf;  // by id; kNoItem: keeps nothing by itself. Ids beyond the end have none.
  Copied<double> sizes;     // bytes by item
  Copied<NodeId> members;   // of the first set, then of the second …
  Copied<uint32_t> ends;    // of each set in `members`
  Copied<NodeId> roots;     // in addition to those of the graph
  Copied<NodeId> edges;     // pairs, in addition to those of the graph

  // Throws GraphError, kind InvalidArgument, when something violates the contract.
  void check() const;
};

struct RetainedSums {
  double kept = 0;
  std::vector<double> total;      // by set
  std::vector<double> retained;   // by set
  std::vector<uint32_t> reached;  // by set: members that are reachable
};

// Throws Cancelled.
RetainedSums retainedSums(const GraphSnapshot& snapshot, const RetainedQuery& query, Cancellation& cancellation);

}  // namespace ebbtide
