// A graph with its run and its checkpoints, shared between the JavaScript thread and the threads that mark and save.
//
// Threads: one owner (the JavaScript thread) calls everything here but `work`, which a job's own thread calls. Only
// the owner changes the graph, so it reads without a lock; it takes the lock to change it and to use marks. A job
// holds the lock for steps of some ten microseconds and gives it away as soon as the owner asks for it, so ops take
// effect at once, also while a run or a save is going on; the write barrier (mark.h) and the copies of what changes
// (checkpoint.h) keep both right.
//
// Contract: a job outlives its core's interest in it (`cancelled`), and the core outlives its jobs (shared pointers).
// Units: times in nanoseconds since 1970, durations in milliseconds.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "checkpoint.h"
#include "graph.h"
#include "mark.h"

namespace ebbtide {

class Core;

// One marking, from its roots to the sorted candidates.
class MarkJob {
 public:
  MarkJob(std::shared_ptr<Core> core, std::shared_ptr<Run> run) : core_(std::move(core)), run_(std::move(run)) {}
  // The job thread's part. Never throws.
  void work();
  // Afterwards, for the owner: what was counted, or a GraphError of kind Canceled or Unavailable.
  MarkCounts result() const;
  double durationMs() const { return durationMs_; }

 private:
  std::shared_ptr<Core> core_;
  std::shared_ptr<Run> run_;
  MarkCounts counts_;
  double durationMs_ = 0;
  bool cancelled_ = false;
  bool outOfMemory_ = false;
};

// One checkpoint, of the moment the job was made.
class SaveJob {
 public:
  SaveJob(std::shared_ptr<Core> core, std::shared_ptr<CheckpointWriter> writer)
      : core_(std::move(core)), writer_(std::move(writer)) {}
  void work();
  std::vector<uint8_t> result();

 private:
  std::shared_ptr<Core> core_;
  std::shared_ptr<CheckpointWriter> writer_;
  std::vector<uint8_t> bytes_;
  bool cancelled_ = false;
  bool outOfMemory_ = false;
};

class Core : public std::enable_shared_from_this<Core> {
 public:
  void apply(std::span<const uint32_t> ops);

  std::unique_ptr<MarkJob> mark(int64_t now, bool barrier);
  // Whether a marking of this graph is so short that a thread of its own would cost more.
  bool isSmall() const { return graph_.limit() <= kSmallIds && graph_.edgeCount() <= 4 * kSmallIds; }
  uint64_t markFrom(std::span<const uint32_t> ids);
  uint32_t marksOf(NodeId id);
  std::vector<NodeId> candidates();
  std::vector<NodeId> stillCandidates(std::span<const uint32_t> ids);
  void endRun();

  std::unique_ptr<SaveJob> save();
  bool load(std::span<const uint8_t> bytes);
  void clear();

  // For questions that need no lock.
  const Graph& graph() const { return graph_; }
  std::vector<NodeId> takeFreeable();

 private:
  friend class MarkJob;
  friend class SaveJob;
  static constexpr uint32_t kSmallIds = 16'384;

  // The owner's hold of the lock: a job that sees `wanted_` makes way.
  class Owner {
   public:
    explicit Owner(Core& core) : core_(core) {
      core_.wanted_.store(true, std::memory_order_relaxed);
      core_.mutex_.lock();
      core_.wanted_.store(false, std::memory_order_relaxed);
    }
    ~Owner() { core_.mutex_.unlock(); }
    Owner(const Owner&) = delete;
    Owner& operator=(const Owner&) = delete;

   private:
    Core& core_;
  };

  // Takes steps, `step` answering true when there are none left, in turns with the owner. Stops when cancelled.
  template <typename Step>
  void inTurns(const std::atomic<bool>& cancelled, Step step);
  Run& finishedRun(const char* what) const;
  // With the lock held.
  void dropRun();
  void dropJobs();

  std::mutex mutex_;
  std::atomic<bool> wanted_{false};
  Graph graph_;
  std::shared_ptr<Run> run_;
  std::vector<std::weak_ptr<CheckpointWriter>> writers_;
};

}  // namespace ebbtide
