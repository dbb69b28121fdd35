// What the programs that test the core share: expectations that are counted, a naive model of nodes and edges, random graphs,
// and jobs that are run to their end. Included by one file of each program.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "core.h"

namespace ebbtide {

inline int failures = 0;

#define EXPECT(condition)                                                \
  do {                                                                   \
    if (!(condition)) {                                                  \
      std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);        \
      failures++;                                                        \
    }                                                                    \
  } while (0)

using Words = std::vector<uint32_t>;

// The rules of a graph, written down as plainly as can be.
struct Model {
  struct Node {
    uint32_t flags;
    int64_t expiry;
  };
  std::map<NodeId, Node> nodes;
  std::multiset<std::tuple<NodeId, NodeId, uint32_t>> edges;

  bool isRoot(const Node& node, int64_t now) const {
    return (node.flags & kRoot) != 0 && ((node.flags & kExpires) == 0 || now <= node.expiry);
  }
  std::set<std::pair<NodeId, bool>> reachable(int64_t now) const {
    std::set<std::pair<NodeId, bool>> seen;
    std::deque<std::pair<NodeId, bool>> queue;
    const auto reach = [&](NodeId id, bool flat) {
      if (seen.insert({id, flat}).second) queue.push_back({id, flat});
    };
    for (const auto& [id, node] : nodes) {
      if (isRoot(node, now)) reach(id, false);
    }
    while (!queue.empty()) {
      const auto [id, flat] = queue.front();
      queue.pop_front();
      for (auto edge = edges.lower_bound({id, 0, 0}); edge != edges.end() && std::get<0>(*edge) == id; ++edge) {
        const auto& [from, to, kind] = *edge;
        if (kind == kStructural) reach(to, flat);
        else if (!flat) reach(to, kind == kFlatEdge);
      }
    }
    return seen;
  }
};

inline Words setOp(NodeId id, uint32_t flags, int64_t expiry = 0) {
  return {kOpSet, id, flags, static_cast<uint32_t>(expiry), static_cast<uint32_t>(expiry >> 32)};
}

inline void append(Words& ops, const Words& op) { ops.insert(ops.end(), op.begin(), op.end()); }

inline MarkCounts runMark(Core& core, int64_t now, Barrier barrier = Barrier::kOn) {
  const auto job = core.mark(now, barrier);
  job->work();
  return job->result();
}

inline std::vector<uint8_t> runSave(Core& core) {
  const auto job = core.save();
  job->work();
  return job->result();
}

// Each of some nodes a set of its own, and every node below `ids` an item of as many bytes as its id.
inline RetainedQuery question(NodeId ids, NodeId sets) {
  Words items(ids), members(sets), ends(sets);
  std::vector<double> sizes(ids);
  for (NodeId id = 0; id < ids; id++) {
    items[id] = id;
    sizes[id] = id;
  }
  for (NodeId n = 0; n < sets; n++) {
    members[n] = n * (ids / sets);
    ends[n] = n + 1;
  }
  return {0, items, sizes, members, ends, Words{}, Words{}};
}

inline bool operator==(const RetainedSums& a, const RetainedSums& b) {
  return a.kept == b.kept && a.total == b.total && a.retained == b.retained && a.reached == b.reached;
}

inline RetainedSums runRetained(Core& core, RetainedQuery query) {
  const auto job = core.retained(std::move(query));
  job->work();
  return job->result();
}

// A random graph over `ids` ids, in the core and in the model.
inline void fill(Core& core, Model& model, std::mt19937& random, NodeId ids, size_t edges) {
  Words ops;
  for (NodeId id = 0; id < ids; id++) {
    if (random() % 10 == 0) continue;
    uint32_t flags = kCollectible | (random() % 8) << 8 | (random() % 6 != 0 ? kPresent : 0u);
    if (random() % 8 == 0) flags |= kRoot;
    if (random() % 8 == 0) flags |= kExpires;
    if (random() % 16 == 0) flags |= kConditional;
    const auto expiry = static_cast<int64_t>(random() % 100) - 50;
    append(ops, setOp(id, flags, expiry));
    model.nodes[id] = {flags, expiry};
  }
  for (size_t n = 0; n < edges; n++) {
    const NodeId from = random() % ids;
    const NodeId to = random() % ids;
    const uint32_t kind = random() % kEdgeKinds;
    if (!model.nodes.contains(from) || !model.nodes.contains(to)) continue;
    append(ops, {kOpAdd, from, to, kind});
    model.edges.insert({from, to, kind});
  }
  core.apply(ops);
}

inline void expectMarks(Core& core, const Model& model, int64_t now) {
  const auto reachable = model.reachable(now);
  for (const auto& [id, node] : model.nodes) {
    const uint32_t wanted = (reachable.contains({id, false}) ? kPlain : 0u) | (reachable.contains({id, true}) ? kFlat : 0u);
    EXPECT((core.marksOf(id) & kReached) == wanted);
  }
}

}  // namespace ebbtide
