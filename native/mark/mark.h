// One run: which nodes can be reached from the roots, which of the others may be removed, and in what order.
//
// Contract: marks are closures, not visits, so they depend on no order. `plain` is the least set that holds the roots
// at `now` and the targets of the label and structural edges of its members; `flat` is the least set that holds the
// targets of flat edges of plain nodes and of structural edges of its members. A node can be both.
// The work is done in steps, between which the graph may change: `writeBarrier` then marks what a batch of ops made
// reachable, so that at the end every reachable node is marked, whatever was changed meanwhile. The worklist has
// each (node, variant) at most once: at most 8 bytes a node. Nothing recurses.
// A run on live marks (live.h) brings those up to date instead of marking, and finds the candidates among what
// they have listed; its own marks then say only what was allocated black. Nothing else differs.
// Marks of an earlier run are wiped segment by segment by the scan for roots; an op that comes first has the segments
// of its nodes scanned at once. So neither the beginning nor the end of a run costs the writers anything.
//
// Threads: none of its own. core.h lets the marking thread take steps and the JavaScript thread apply ops alternately;
// only `sortCandidates` runs concurrently with ops. Units: times in nanoseconds since 1970.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/chunked.h"
#include "graph/graph.h"
#include "mark/live.h"
#include "graph/order.h"

namespace ebbtide {

// How a run found what is reached: from the roots, on live marks, or on live marks that it counted (anew).
enum class Marking : uint8_t { kFromRoots, kLive, kCounted };

struct MarkCounts {
  std::array<uint32_t, 32> byType{};  // present nodes
  uint64_t marked = 0;                // existing ones, dangling ones included
  uint64_t edgesFollowed = 0;
  Marking marking = Marking::kFromRoots;
};

// Whether ops keep the marks closed: always, but for tests that must fail without. `kLate`: from the end of marking.
enum class Barrier : uint8_t { kOff, kOn, kLate };

class MarkRun final : public GraphObserver {
 public:
  MarkRun(Graph& graph, int64_t now, Barrier barrier);
  MarkRun(Graph& graph, std::shared_ptr<LiveMarks> live);
  // Stops listening to the graph. Due, under the lock, before the run is dropped; twice is harmless.
  void detach();
  MarkRun(const MarkRun&) = delete;
  MarkRun& operator=(const MarkRun&) = delete;

  // Does a little of the marking and of the search for candidates; true when only `sortCandidates` is left. Expands
  // `most` nodes, or places in a big list, at once, or as many as is fastest.
  bool step(size_t most = SIZE_MAX);
  // Sorts the candidates, looking at up to so many at once; true when all are sorted. Touches nothing that ops change.
  bool sortCandidates(size_t most);
  void finish();
  bool ready() const { return phase_ == Phase::kReady; }
  // The marks that it relies on; null when it has its own.
  LiveMarks* live() const { return live_.get(); }

  // The write barrier, called with every batch once all of it is in the graph.
  void writeBarrier(std::span<const uint32_t> ops);
  // Marks these nodes and all they reach; returns how many were newly marked. The run is ready.
  uint64_t markFrom(std::span<const uint32_t> ids);
  bool isCandidate(NodeId id) const;
  uint32_t marksOf(NodeId id) const {
    const uint32_t own = isScanned(id) ? graph_.marks(id) : 0;
    return live_ == nullptr ? own : live_->marksOf(id) | (own & kAllocatedBlack);
  }
  // Places of the removal order, and the candidates among some of them.
  size_t places() const { return order_.size(); }
  std::vector<NodeId> candidates(size_t from, size_t count) const;

  void beforeChange(NodeId id) override;
  const MarkCounts& counts() const { return counts_; }

  // Set to make the marking thread give up; never cleared.
  std::atomic<bool> cancelled{false};

 private:
  enum class Phase { kUpdating, kRoots, kTracing, kCollecting, kLinking, kSorting, kReady };

  bool scanRoots();
  void scanSegment(size_t segment);
  bool isScanned(NodeId id) const;
  void expandSome(size_t most = SIZE_MAX);
  void drain();
  void expandBatch(std::span<const uint32_t> states);
  void followBig(size_t slots);
  bool updateLive(size_t most);
  bool collect();
  void collectSegment(size_t segment);
  bool collectListed();
  bool link();
  bool workLeft() const { return !worklist_.empty() || !bigs_.empty() || big_.has_value(); }
  void reach(NodeId id, uint32_t bit);
  void follow(uint32_t marks, uint32_t word);
  void reachAll(std::span<const uint32_t> states);

  Graph& graph_;
  const std::shared_ptr<LiveMarks> live_;
  const int64_t now_;
  bool barrier_;             // whether ops change marks
  const bool barrierIsLate_; // it comes up at the end of marking
  Phase phase_ = Phase::kRoots;
  NodeId next_ = 0;      // where the scan of the phase goes on
  size_t linkSlot_ = 0;  // and where in a big list
  std::vector<bool> scanned_;  // segments wiped and searched for roots
  // States whose edges are still to be followed: id << 1, | 1 for the flat variant, | 1 << 31 when the node was not
  // marked before at all.
  ChunkedWords worklist_;
  std::vector<uint32_t> bigs_;  // the same, for nodes with a big list
  struct BigCursor {
    uint32_t state;
    size_t slot;
  };
  std::optional<BigCursor> big_;  // the big list that is being followed
  MarkCounts counts_;
  std::vector<bool> segments_;  // that have listed garbage
  size_t listed_ = 0;            // how much of it has been looked at
  bool isSifted_ = false;
  bool isRestarted_ = false;  // live marks were counted again
  RemovalOrder removalOrder_;
  std::vector<NodeId> order_;
};

}  // namespace ebbtide
