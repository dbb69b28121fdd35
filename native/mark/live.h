// Live marks: every commit keeps up to date which nodes are reached, so a run need not find it again (docs/proof.md has the
// argument).
//
// Contract: a state is a node in one variant, plain or flat (mark.h). Each state has a count: its followed in-edges from
// states that are expanded, one more when the node is a root at the time set last, and one when it is pinned. A state is
// expanded when its own edges are counted at their targets. Ops change counts only, and list the states they touched;
// `step` then processes the lists: a state that has a count and is not expanded revives, an expanded one without a count
// dies, and the counts of what it refers to follow. When nothing is left (`isUpToDate`), the states that are expanded are
// exactly those that are reached: none is missing, because roots have a count; none is left over, because a state that lost
// a count and kept others gets a trial deletion: if all counts of it, and of what it leads to, come from among them, nothing
// keeps them. A trial that would look at more than `kTrialEdges` edges is given up, and a run counts everything again, in
// steps, once at most. When only states that may die are left (`revived`), no reached state is missing: safety asks for no
// more.
//
// Cost: of an op, its own; of the steps, the states that revive and die with their edges, and a bounded trial for each
// state that lost a count. Memory: 2 bytes a node, once more where there are flat marks; 4 for each state listed, once each;
// some 80 for each root that expires. Nothing recurses. bad_alloc leaves it broken: its caller says so (`markBroken`).
//
// Threads: none of its own; every call holds core.h's lock. Units: times in nanoseconds since 1970.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "base/chunked.h"
#include "graph/graph.h"
#include "mark/live_cells.h"

namespace ebbtide {

// What a test leaves out, and must find.
enum class LiveFault : uint8_t { kNone, kNoRevive, kNoCascade, kNoTrial, kEdgeTwice, kNoRootWeight, kFaults };

// Told before marks of a node change; not when they are found anew (`restarts`), or break. Never throws.
class LiveObserver {
 public:
  virtual ~LiveObserver() = default;
  virtual void beforeMarks(NodeId id) = 0;
};

// What a checkpoint has of marks (checkpoint_marks.h).
struct SavedMarks {
  int64_t now = 0;
  // Ascending, each once.
  std::vector<NodeId> unmarked;
  std::vector<NodeId> flat;
};

class LiveMarks final : public GraphObserver {
 public:
  LiveMarks(Graph& graph, int64_t now, LiveFault fault);
  // Marks that were saved, of a graph that was just loaded; `flatSources`: its nodes with flat edges. Null unless they, and
  // the counts that follow from them, are what `isUpToDate` promises (docs/proof.md).
  static std::shared_ptr<LiveMarks> adopt(Graph& graph, const SavedMarks& saved, std::span<const NodeId> flatSources);
  // Stops listening to the graph; twice is harmless.
  void detach() { graph_.unobserve(this); }
  LiveMarks(const LiveMarks&) = delete;
  LiveMarks& operator=(const LiveMarks&) = delete;

  // With every batch: before it, and after it, whether it was applied or refused.
  void beforeBatch(std::span<const uint32_t> ops);
  void afterBatch(std::span<const uint32_t> ops, bool applied);
  void beforeChange(NodeId id) override;

  // Roots are those of this time from now on.
  void setNow(int64_t now);
  int64_t now() const { return now_; }
  LiveFault fault() const { return fault_; }
  // Takes up a little of what is left, `most` states at once or as many as is fastest; true when nothing is.
  bool step(size_t most = SIZE_MAX);
  // Whether all that is reached is expanded.
  bool revived() const {
    return !big_.has_value() && waiting_.empty() && scan_ != Scan::kRoots && !recheck_.has_value();
  }
  bool isUpToDate() const { return revived() && lost_.empty() && suspects_.empty() && scan_ == Scan::kDone; }
  // Takes steps until `revived`, so many at most; whether it is.
  bool revive(size_t steps);

  // Whether a trial was given up: what is not reached may be expanded.
  bool isDoubtful() const { return doubtful_; }
  // Whether memory ran out, or a count was not what the ops say: then nothing here may be believed.
  bool isBroken() const { return broken_; }
  void markBroken() { broken_ = true; }
  // Begins to count from the roots.
  void restart();
  uint64_t restarts() const { return restarts_; }
  bool hasPins() const { return !pins_.empty(); }

  void observe(LiveObserver* observer) { observers_.push_back(observer); }
  void unobserve(LiveObserver* observer) { std::erase(observers_, observer); }

  // kPlain and kFlat of an expanded node.
  uint32_t marksOf(NodeId id) const { return bitOf(id, kPlain) | bitOf(id, kFlat); }
  uint32_t countOf(NodeId id, MarkBit variant) const { return cells_.count(stateOf(id, variant)); }
  bool isPinned(NodeId id) const { return (cells_.flags(stateOf(id, kPlain)) & LiveCells::kPinned) != 0; }
  bool isListed(NodeId id) const { return (cells_.flags(stateOf(id, kPlain)) & LiveCells::kGarbage) != 0; }
  const std::array<uint32_t, 32>& byType() const { return byType_; }  // expanded nodes that are present
  const std::array<uint32_t, 32>& garbageByType() const { return garbageByType_; }
  // Whether all nodes have been counted since the last `restart`.
  bool isCounted() const { return scan_ == Scan::kDone; }
  uint64_t marked() const { return marked_; }                          // expanded nodes
  uint64_t followed() const { return followed_; }                      // edges counted so far, up or down

  // Nodes that may be garbage, each once: all that is, and what was and has revived since the last `sift`.
  size_t listedGarbage() const { return garbage_.size(); }
  NodeId garbageAt(size_t i) const { return garbage_[i]; }
  // visit(id) for those of `count` ids from `first` on, ascending. REQUIRES: `count` is a power of two from 4 to 2^20, and
  // `first` a multiple of it.
  template <typename Visit>
  void forEachListed(NodeId first, uint32_t count, Visit visit) const {
    cells_.forEachWith(LiveCells::kGarbage, stateOf(first, kPlain), count, [&](uint32_t i) { visit(first + i); });
  }
  // Forgets those that have revived, looking at so many; true when all were looked at.
  bool sift(size_t most);
  bool isGarbage(NodeId id) const {
    constexpr uint32_t wanted = kPresent | kCollectible;
    return (graph_.flags(id) & wanted) == wanted && marksOf(id) == 0 && !broken_;
  }
  // What has become garbage since the last call, each once, as far as it still is; the first time all. Of very much some is
  // left out.
  std::vector<NodeId> takeFresh();
  size_t bytes() const;

  // Keeps a node for a run, whatever else does; until `unpin`.
  void pin(NodeId id);
  void unpin();

 private:
  static constexpr uint32_t stateOf(NodeId id, uint32_t variant) { return id << 1 | (variant == kFlat ? 1u : 0u); }
  static constexpr NodeId idOf(uint32_t state) { return state >> 1; }
  uint32_t bitOf(NodeId id, MarkBit variant) const {
    return (cells_.flags(stateOf(id, variant)) & LiveCells::kExpanded) != 0 ? uint32_t{variant} : 0;
  }

  enum class Scan { kRoots, kGarbage, kDone };

  void scan();
  void recheckExpiries(size_t most);
  void reviveSome(size_t most);
  void loseSome(size_t most);
  void followBig(size_t slots);
  void trialDelete(uint32_t state);

  void add(uint32_t state, uint32_t times);
  void drop(uint32_t state, uint32_t times);
  void enlist(uint32_t state, uint32_t flag, ChunkedWords& list);
  void listGarbage(NodeId id);
  void listFresh(NodeId id);
  void forgetFresh();
  void setExpanded(uint32_t state, bool expanded);
  void die(uint32_t state);
  void updateRoot(NodeId id);
  void followEdge(NodeId from, NodeId to, uint32_t kind, bool isNew);
  void forget(NodeId id);
  void discount(NodeId id);
  void recount(NodeId id);
  void indexExpiry(NodeId id);
  bool hasTargets(uint32_t state) const;
  bool countFrom(const SavedMarks& saved, std::span<const NodeId> flatSources);
  size_t expandAll();
  void keepExpiries();
  // visit(state, times) for what a state's edges lead to; small lists only.
  template <typename Visit>
  static void forEachTarget(std::span<const uint32_t> words, uint32_t state, Visit visit);

  Graph& graph_;
  const LiveFault fault_;
  int64_t now_;
  bool doubtful_ = false;
  bool broken_ = false;
  LiveCells cells_;
  Scan scan_ = Scan::kRoots;  // of all nodes, the first time
  NodeId next_ = 0;           // where it goes on
  ChunkedWords waiting_;   // states that have a count and may not be expanded
  ChunkedWords lost_;      // states that lost a count
  ChunkedWords suspects_;  // those of them that kept others and lead somewhere
  ChunkedWords garbage_;
  ChunkedWords sifted_;    // garbage that was looked at
  bool keepsFresh_ = false;    // else all garbage is new
  std::vector<NodeId> fresh_;  // with kFresh; some have revived
  std::vector<NodeId> pins_;
  struct BigCursor {
    uint32_t state;
    size_t slot;
    bool adds;
  };
  std::optional<BigCursor> big_;  // the big list that is being counted
  // Roots that expire, by expiry; and the expiry that each has there.
  std::set<std::pair<int64_t, NodeId>> expiring_;
  FlatMap<int64_t> expiries_;
  struct Range {
    std::pair<int64_t, NodeId> from;
    int64_t to;  // exclusive
  };
  std::optional<Range> recheck_;  // expiries that are still to be looked at
  std::array<uint32_t, 32> byType_{};
  std::array<uint32_t, 32> garbageByType_{};
  uint64_t marked_ = 0;
  uint64_t followed_ = 0;
  uint64_t restarts_ = 0;
  std::vector<LiveObserver*> observers_;
};

// Ids whose marks or counts are not what a walk over the graph finds, ascending, the first 100. REQUIRES: the marks are up
// to date. Takes the time of the walk, without a pause.
std::vector<NodeId> wrongLiveMarks(const Graph& graph, const LiveMarks& live);

}  // namespace ebbtide
