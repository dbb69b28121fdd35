// A comparison of marks that live on with marks that are counted anew, beside the writers: what has crept in since they were
// counted (a fault of the code, of the memory) shows.
//
// Contract: both follow every batch; where nothing is left to take up in either, they are equal, node by node, so nodes may be
// compared at different such moments. It is left undone when the marks break or are in doubt, when a run begins (core.h), and
// without memory. Memory and time are those of counting (live.h).
//
// Threads: none of its own; `step` takes turns with changes, under their lock.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "mark/live.h"

namespace ebbtide {

class LiveCheck {
 public:
  LiveCheck(Graph& graph, std::shared_ptr<LiveMarks> live)
      : graph_(graph), live_(std::move(live)), second_(graph, live_->now(), LiveFault::kNone) {}
  // Stops listening to the graph. Due, under the lock, before it is dropped; twice is harmless.
  void detach() { second_.detach(); }

  // Does a little; true when there is nothing left to do.
  bool step();
  // With every batch, as LiveMarks.
  void beforeBatch(std::span<const uint32_t> ops);
  void afterBatch(std::span<const uint32_t> ops, bool applied);
  // A step has run out of memory.
  void markBroken() {
    live_->markBroken();
    second_.markBroken();
  }
  // Ids that differ, the first 100; nothing when it was left undone.
  std::optional<std::vector<NodeId>> result() const { return isComplete_ ? std::optional(wrong_) : std::nullopt; }

  // Set to make its thread give up; never cleared.
  std::atomic<bool> cancelled{false};

 private:
  bool leave() {
    wrong_.clear();
    return true;
  }

  Graph& graph_;
  const std::shared_ptr<LiveMarks> live_;
  LiveMarks second_;
  NodeId next_ = 0;
  bool isComplete_ = false;
  std::vector<NodeId> wrong_;
};

}  // namespace ebbtide
