// Why a node is kept: a shortest path from a root to it.
//
// Contract: of several shortest paths, the one that a breadth-first search finds when every state, (id, variant),
// records its smallest predecessor in the level before. Takes 9 bytes an id during the search. Threads: the graph
// must not change during the search.
#pragma once

#include <vector>

#include "graph/graph.h"

namespace ebbtide {

// Ids, the root first; empty when the node does not exist or is not reachable from any root at `now` (nanoseconds
// since 1970).
std::vector<NodeId> shortestPath(const Graph& graph, NodeId id, int64_t now);

}  // namespace ebbtide
