// A graph with its run, its checkpoints and its reports, shared between the JavaScript thread and the threads that
// mark, save and report.
//
// Threads: one owner (the JavaScript thread) calls everything here but `work`, which a job's own thread calls
// (`step` does the same in small portions on the owner's thread: where there is no other thread, and in tests that
// decide what happens between two steps). Only the owner changes nodes and edges, so it reads them without a lock;
// it takes the lock to change them and to use marks. Marks are written by jobs, next to the flags that the owner
// reads: see Node in edges.h. A job holds the lock for steps of some ten microseconds and releases it as soon as
// the owner asks for it, so ops take effect at once, also during a run or a save; the write barrier (mark.h) and
// the copies of what changes (checkpoint.h) keep both correct.
//
// Contract: a job may outlive its core's use of it (`cancelled`), and the core outlives its jobs (shared pointers).
// Units: times in nanoseconds since 1970, durations in milliseconds.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "graph/graph.h"
#include "mark/live.h"
#include "mark/live_check.h"
#include "base/lock.h"
#include "mark/mark.h"
#include "graph/graph_snapshot.h"
#include "graph/retained.h"

namespace ebbtide {

class Core;

// One marking, from its roots to the sorted candidates.
class MarkJob {
 public:
  MarkJob(std::shared_ptr<Core> core, std::shared_ptr<MarkRun> run) : core_(std::move(core)), run_(std::move(run)) {}
  // The job thread's part. Never throws.
  void work();
  // Instead of `work`: expands up to `nodes` nodes; returns true when nothing is left to do.
  bool step(size_t nodes);
  // With live marks: does all of it at once if that takes little; `work` has nothing left to do then.
  bool tryAtOnce();
  // For the owner, afterwards: the counts, or a GraphError of kind Canceled or ResourceExhausted.
  MarkCounts result() const;
  double durationMs() const { return durationMs_; }

 private:
  // REQUIRES: the lock is held.
  bool advance(size_t nodes);
  void finish();

  std::shared_ptr<Core> core_;
  std::shared_ptr<MarkRun> run_;
  MarkCounts counts_;
  double durationMs_ = 0;
  bool done_ = false;
  bool cancelled_ = false;
  bool outOfMemory_ = false;
};

// One checkpoint, with the state at the job's creation.
class SaveJob {
 public:
  SaveJob(std::shared_ptr<Core> core, std::shared_ptr<CheckpointWriter> writer)
      : core_(std::move(core)), writer_(std::move(writer)) {}
  ~SaveJob();
  SaveJob(const SaveJob&) = delete;
  SaveJob& operator=(const SaveJob&) = delete;
  void work();
  bool step();
  std::vector<uint8_t> result();

 private:
  void finish();

  std::shared_ptr<Core> core_;
  std::shared_ptr<CheckpointWriter> writer_;
  std::vector<uint8_t> bytes_;
  bool cancelled_ = false;
  bool outOfMemory_ = false;
};

// One report of retained sizes, with the state at the job's creation.
class RetainedJob {
 public:
  RetainedJob(std::shared_ptr<Core> core, std::shared_ptr<SnapshotBuilder> builder, RetainedQuery query)
      : core_(std::move(core)), builder_(std::move(builder)), query_(std::move(query)) {}
  ~RetainedJob();
  RetainedJob(const RetainedJob&) = delete;
  RetainedJob& operator=(const RetainedJob&) = delete;
  void work();
  bool step();
  // The sums, or a GraphError of kind InvalidArgument, Canceled or ResourceExhausted.
  RetainedSums result();
  double durationMs() const { return durationMs_; }
  // For cancelling, from any thread.
  const std::shared_ptr<SnapshotBuilder>& builder() const { return builder_; }

 private:
  template <typename Body>
  bool advance(Body body);
  void sum();

  std::shared_ptr<Core> core_;
  std::shared_ptr<SnapshotBuilder> builder_;
  RetainedQuery query_;
  RetainedSums sums_;
  double durationMs_ = 0;
  std::optional<GraphError> error_;
};

// One comparison of the live marks with marks counted anew.
class CheckJob {
 public:
  // Null: there is nothing to compare.
  CheckJob(std::shared_ptr<Core> core, std::shared_ptr<LiveCheck> check) : core_(std::move(core)), check_(std::move(check)) {}
  ~CheckJob();
  CheckJob(const CheckJob&) = delete;
  CheckJob& operator=(const CheckJob&) = delete;
  void work();
  bool step();
  // Ids that differ, the first 100; nothing when it was left undone. Marks of which some differ are dropped.
  std::optional<std::vector<NodeId>> result();

 private:
  bool advance();

  std::shared_ptr<Core> core_;
  std::shared_ptr<LiveCheck> check_;
};

class Core : public std::enable_shared_from_this<Core> {
 public:
#ifdef EBBTIDE_DEBUG
  Core() { graph_.guardedBy(mutex_); }
#endif
  void apply(std::span<const uint32_t> ops);

  std::unique_ptr<MarkJob> mark(int64_t now, Barrier barrier);
  // A run on live marks, which are counted first if there are none.
  std::unique_ptr<MarkJob> markLive(int64_t now, LiveFault fault);
  // Either, in the carriers' numbers: a Barrier, or from 3 on live marks with a LiveFault.
  std::unique_ptr<MarkJob> markAs(int64_t now, uint64_t how);
  // Processes what ops have changed in live marks, in `steps` at most; false when there is more that may revive. A GraphError
  // when there is no run whose marking has finished.
  bool catchUp(size_t steps);
  // Takes up what ops have changed in the live marks, in `steps` at most; true when nothing is left, or there are none.
  bool bringUpToDate(size_t steps);
  // Ids whose live marks or counts are not what a walk over the graph finds, the first 100; nothing when there are none.
  // Brings them up to date first. Takes the time of both, without a pause.
  std::optional<std::vector<NodeId>> wrongLive();
  // The same beside the writers, with marks counted anew. A run that begins meanwhile ends it.
  std::unique_ptr<CheckJob> checkLive();
  bool hasLive() const { return live_ != nullptr; }
  // What is garbage by the live marks as far as they are up to date: by type; the ids among so many places of a list; those that
  // have become so since the last call (live.h). All zero or none where nothing lives.
  std::array<uint32_t, 32> garbageByType();
  std::vector<NodeId> garbage(size_t from, size_t count);
  std::vector<NodeId> freshGarbage();
  // Whether marking this graph is so short that a thread of its own would cost more.
  bool isSmall() const { return graph_.limit() <= kSmallIds && graph_.edgeCount() <= 4 * kSmallIds; }
  uint64_t markFrom(std::span<const uint32_t> ids);
  uint32_t marksOf(NodeId id);
  size_t places();
  std::vector<NodeId> candidates(size_t from = 0, size_t count = SIZE_MAX);
  std::vector<NodeId> stillCandidates(std::span<const uint32_t> ids);
  void endRun();

  std::unique_ptr<SaveJob> save();
  std::unique_ptr<RetainedJob> retained(RetainedQuery query);
  // Whether the report is so small that a thread of its own would cost more.
  bool isSmall(const RetainedQuery& query) const;
  bool load(std::span<const uint8_t> bytes);
  void clear();

  // Memory, in bytes.
  size_t bytes();
  // For queries that need no lock.
  const Graph& graph() const { return graph_; }
  std::vector<NodeId> takeFreeable();

 private:
  friend class MarkJob;
  friend class SaveJob;
  friend class RetainedJob;
  friend class CheckJob;
  static constexpr uint32_t kSmallIds = 16'384;

  // The owner's lock: a job that sees `ownerWaits_` releases it.
  class OwnerLock {
   public:
    explicit OwnerLock(Core& core) : core_(core) {
      core_.ownerWaits_.store(true, std::memory_order_relaxed);
      core_.mutex_.lock();
      core_.ownerWaits_.store(false, std::memory_order_relaxed);
    }
    ~OwnerLock() { core_.mutex_.unlock(); }
    OwnerLock(const OwnerLock&) = delete;
    OwnerLock& operator=(const OwnerLock&) = delete;

   private:
    Core& core_;
  };

  // Runs steps, until `step` returns true, alternating with the owner. Stops when cancelled.
  template <typename Step>
  void runSteps(const std::atomic<bool>& cancelled, Step step);
  MarkRun& finishedRun(const char* what, size_t steps = SIZE_MAX);
  // Called when a job ends, complete or not.
  void forget(GraphCopy& copy);
  // REQUIRES: the lock is held.
  void followLive(std::span<const uint32_t> ops, bool applied);
  std::unique_ptr<MarkJob> jobOfRun();
  bool updateLive(size_t steps);
  std::shared_ptr<LiveMarks> savableLive();
  void dropRun();
  void dropLive();
  void dropCheck();
  void dropJobs();
  template <typename Job, typename Copy, typename... More>
  std::unique_ptr<Job> begin(std::shared_ptr<Copy> copy, More&&... more);

  Mutex mutex_;
  std::atomic<bool> ownerWaits_{false};
  Graph graph_;
  std::shared_ptr<MarkRun> run_;
  std::shared_ptr<LiveMarks> live_;
  std::shared_ptr<LiveCheck> check_;
  std::vector<std::weak_ptr<GraphCopy>> copies_;
};

template <typename Step>
void Core::runSteps(const std::atomic<bool>& cancelled, Step step) {
  for (;;) {
    while (ownerWaits_.load(std::memory_order_relaxed)) yieldThread();
    const Locked lock(mutex_);
    do {
      if (cancelled.load(std::memory_order_relaxed) || step()) return;
    } while (!ownerWaits_.load(std::memory_order_relaxed));
  }
}

}  // namespace ebbtide
