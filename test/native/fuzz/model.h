// The rules of a graph, written down as plainly as can be, for the fuzz target of changes: which batches are possible,
// what they do, what is reachable. Slow on purpose, and shares no code with the core but the names of its numbers.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>

#include "graph/retained.h"

namespace ebbtide::fuzz {

struct ModelNode {
  uint32_t flags = 0;
  int64_t expiry = 0;
  bool operator==(const ModelNode&) const = default;
};
using ModelEdge = std::tuple<NodeId, NodeId, uint32_t>;
using States = std::set<std::pair<NodeId, bool>>;  // true: flat

struct Model {
  std::map<NodeId, ModelNode> nodes;
  std::map<ModelEdge, uint32_t> edges;  // how often each is there
  uint64_t edgeCount = 0;

  // The graph after a batch; nothing when the batch is not possible. Adds nodes that became present to `allocated`.
  std::optional<Model> after(std::span<const uint32_t> ops, std::set<NodeId>& allocated) const;

  bool isRoot(NodeId id, int64_t now) const;
  bool isFreeable(NodeId id) const;
  uint64_t inDegree(NodeId id) const;
  // Words of the node's edges, ascending; each once, or as often as it is there.
  std::vector<uint32_t> words(NodeId id, bool repeated) const;

  // What is reached from the roots, without the nodes of `gone`.
  States reachable(int64_t now, const std::set<NodeId>& gone = {}) const;
  States reachableFrom(States open, const std::set<NodeId>& gone = {}) const;
  RetainedSums retained(const RetainedQuery& query) const;

 private:
  bool take(std::span<const uint32_t> op, std::set<NodeId>& allocated);
};

}  // namespace ebbtide::fuzz
