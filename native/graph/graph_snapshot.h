// A copy of a graph as it was at one moment, for reports that walk it forwards and backwards while writers go on.
//
// Contract: the snapshot has the existing nodes under dense numbers, in the order of their ids; which of them are roots at
// `now`; each distinct edge between them, and extra edges and roots of the caller's, which are ignored when a node they
// name does not exist. Memory: 17 bytes a node and 8 an edge. Nothing recurses. bad_alloc when there is no memory. It is
// built in steps, between which the graph may change: what is about to change is copied first.
//
// Threads: none of its own. `gather` alternates with changes; `build`, and reads of the snapshot, run concurrently with
// them.
// Units: `now` is nanoseconds since 1970.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "graph/ranks.h"

namespace ebbtide {

// Words of node n are words[first[n]] to words[first[n + 1] - 1]: number << 2 | kind.
struct Adjacency {
  std::vector<uint32_t> first;
  std::vector<uint32_t> words;

  std::span<const uint32_t> of(uint32_t node) const { return {words.data() + first[node], words.data() + first[node + 1]}; }
};

struct GraphSnapshot {
  IdRanks numbers;             // node numbers by id
  std::vector<NodeId> ids;     // by number, ascending
  std::vector<uint8_t> isRoot; // by number
  Adjacency out;               // words hold targets
  Adjacency in;                // words hold sources

  uint32_t size() const { return static_cast<uint32_t>(ids.size()); }
};

// Thrown by long loops that find themselves cancelled.
struct Cancelled {};

// Lets a long loop look now and then whether it is cancelled.
class Cancellation {
 public:
  explicit Cancellation(const std::atomic<bool>& cancelled) : cancelled_(cancelled) {}
  // Counts a step of the loop; throws Cancelled.
  void poll() {
    if ((++steps_ & 0x3fff) == 0 && cancelled_.load(std::memory_order_relaxed)) throw Cancelled();
  }

 private:
  const std::atomic<bool>& cancelled_;
  uint32_t steps_ = 0;
};

class SnapshotBuilder final : public GraphCopy {
 public:
  SnapshotBuilder(Graph& graph, int64_t now);

  // Copies the next few nodes; true when all have been copied.
  bool gather();
  // Once all is gathered. `roots` are ids, `edges` are pairs of ids (from, to), followed like labels.
  GraphSnapshot build(std::span<const NodeId> roots, std::span<const NodeId> edges, Cancellation& cancellation);

  void beforeChange(NodeId id) override;

 private:
  // A node as it was when the snapshot was begun.
  struct BeforeImage {
    bool existed = false;
    bool isRoot = false;
    std::vector<uint32_t> words;
  };

  using Pairs = std::vector<std::pair<uint32_t, uint32_t>>;

  void gatherNode(NodeId id);
  // What was gathered, and edges between numbers, ascending, beside it.
  Adjacency outgoing(const IdRanks& numbers, const Pairs& extra, Cancellation& cancellation) const;
  void put(NodeId id, bool isRoot);

  const int64_t now_;
  const NodeId limit_;
  NodeId next_ = 0;
  std::unordered_map<NodeId, BeforeImage> beforeImages_;
  // What was gathered: words still hold ids.
  std::vector<NodeId> ids_;
  std::vector<uint8_t> isRoot_;
  std::vector<uint32_t> ends_;
  std::vector<uint32_t> words_;
};

}  // namespace ebbtide
