// Why is a node kept: a shortest path from a root to it.
//
// Contract: of several shortest paths the one that a breadth-first search finds when every state, (id, variant),
// remembers its smallest predecessor in the level before; Takes 9 bytes an id while
// it searches. Threads: the graph must not change meanwhile.
#pragma once

#include <vector>

#include "graph.h"

namespace ebbtide {

// Ids, the root first; empty when the node does not exist or no root at `now` (nanoseconds since 1970) reaches it.
std::vector<NodeId> shortestPath(const Graph& graph, NodeId id, int64_t now);

}  // namespace ebbtide
