// See core.h for the contract and the threading rule.
#include "core.h"

#include <chrono>

namespace ebbtide {

namespace {

// Candidates sorted at a time.
constexpr size_t kSorted = 1 << 16;
// What a run on live marks does before it asks for a thread: a fraction of a millisecond.
constexpr int kStepsAtOnce = 24;
constexpr size_t kNodesAtOnce = 1024;

GraphError canceled(const char* what) { return {"Canceled", std::string(what) + ": the graph's owner ended it"}; }
GraphError outOfMemory(const char* what) { return {kNoMemory, std::string(what) + ": out of memory"}; }

double msSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

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

// ---------------------------------------------------------------------------------------------------------- owner

// Without memory for the barrier's work a run cannot be trusted any more, so it ends; the ops themselves stay
// applied. A batch that could not be taken back has left an empty graph, of which nothing that is under way knows.
void Core::apply(std::span<const uint32_t> ops) {
  const OwnerLock lock(*this);
  const uint64_t clears = graph_.clears();
  // A job's thread may have broken them.
  if (live_ != nullptr && live_->isBroken()) dropLive();
  if (live_ != nullptr) live_->beforeBatch(ops);
  bool applied = false;
  try {
    graph_.apply(ops);
    applied = true;
    followLive(ops, true);
    if (run_ != nullptr) run_->writeBarrier(ops);
  } catch (const std::bad_alloc&) {
    dropRun();
    if (applied) return;
    dropLive();
    if (graph_.clears() != clears) dropJobs();
    throw;
  } catch (const GraphError&) {
    if (graph_.clears() != clears) dropJobs();
    followLive(ops, false);
    throw;
  }
}

void Core::followLive(std::span<const uint32_t> ops, bool applied) {
  // Memory may have run out for them in the middle of the batch.
  if (live_ != nullptr && live_->isBroken()) dropLive();
  if (live_ == nullptr) return;
  try {
    live_->afterBatch(ops, applied);
  } catch (const std::bad_alloc&) {
    live_->markBroken();
  }
  if (live_->isBroken()) dropLive();
}

std::unique_ptr<MarkJob> Core::mark(int64_t now, Barrier barrier) {
  if (run_ != nullptr) throw failedPrecondition("mark: a run is in progress; end it with endRun first");
  const OwnerLock lock(*this);
  run_ = std::make_shared<MarkRun>(graph_, now, barrier);
  return jobOfRun();
}

std::unique_ptr<MarkJob> Core::markLive(int64_t now, LiveFault fault) {
  if (run_ != nullptr) throw failedPrecondition("mark: a run is in progress; end it with endRun first");
  const OwnerLock lock(*this);
  if (live_ != nullptr && (live_->isBroken() || live_->fault() != fault)) dropLive();
  if (live_ == nullptr) live_ = std::make_shared<LiveMarks>(graph_, now, fault);
  live_->setNow(now);
  run_ = std::make_shared<MarkRun>(graph_, live_);
  return jobOfRun();
}

// A run without a job would be in progress for ever.
std::unique_ptr<MarkJob> Core::jobOfRun() try {
  return std::make_unique<MarkJob>(shared_from_this(), run_);
} catch (const std::bad_alloc&) {
  dropRun();
  throw;
}

std::unique_ptr<MarkJob> Core::markAs(int64_t now, uint64_t how) {
  constexpr uint64_t kLive = static_cast<uint64_t>(Barrier::kLate) + 1;
  if (how < kLive) return mark(now, static_cast<Barrier>(how));
  if (how - kLive >= static_cast<uint64_t>(LiveFault::kFaults)) throw invalidArgument("mark: unknown way to mark");
  return markLive(now, static_cast<LiveFault>(how - kLive));
}

bool Core::catchUp(size_t steps) {
  const OwnerLock lock(*this);
  return finishedRun("catchUp", steps).live() == nullptr || live_->revived();
}

std::optional<std::vector<NodeId>> Core::wrongLive() {
  const OwnerLock lock(*this);
  if (live_ == nullptr || live_->isBroken()) return std::nullopt;
  try {
    while (!live_->isUpToDate()) live_->step();
    // Between runs, what a trial has left open can be counted again.
    if (live_->isDoubtful()) {
      if (run_ != nullptr) return std::nullopt;
      live_->restart();
      while (!live_->isUpToDate()) live_->step();
    }
    return wrongLiveMarks(graph_, *live_);
  } catch (const std::bad_alloc&) {
    dropLive();
    throw;
  }
}

size_t Core::bytes() {
  const OwnerLock lock(*this);
  return graph_.bytes() + (live_ == nullptr ? 0 : live_->bytes());
}

// The run, with so many steps' worth of what ops have changed taken up; by default all of it.
MarkRun& Core::finishedRun(const char* what, size_t steps) {
  if (run_ == nullptr || !run_->ready()) {
    throw failedPrecondition(std::string(what) + ": there is no run whose marking has finished; await mark first");
  }
  if (run_->live() == nullptr) return *run_;
  if (live_->isBroken()) {
    dropLive();
    throw canceled(what);
  }
  try {
    live_->revive(steps);
  } catch (const std::bad_alloc&) {
    dropLive();
    throw;
  }
  return *run_;
}

uint64_t Core::markFrom(std::span<const uint32_t> ids) {
  const OwnerLock lock(*this);
  MarkRun& run = finishedRun("markFrom");
  for (const NodeId id : ids) {
    if (id >= kMaxNodes) throw invalidArgument("node id " + std::to_string(id) + " is beyond the limit");
  }
  try {
    return run.markFrom(ids);
  } catch (const std::bad_alloc&) {
    dropLive();
    dropRun();
    throw;
  }
}

uint32_t Core::marksOf(NodeId id) {
  const OwnerLock lock(*this);
  if (run_ == nullptr) return 0;
  // As in a run of its own marks, which knows before it has finished what it has reached so far.
  return run_->ready() ? finishedRun("marksOf").marksOf(id) : run_->marksOf(id);
}

size_t Core::places() {
  const OwnerLock lock(*this);
  return finishedRun("places").places();
}

std::vector<NodeId> Core::candidates(size_t from, size_t count) {
  const OwnerLock lock(*this);
  return finishedRun("candidates").candidates(from, count);
}

std::vector<NodeId> Core::stillCandidates(std::span<const uint32_t> ids) {
  const OwnerLock lock(*this);
  const MarkRun& run = finishedRun("stillCandidates");
  std::vector<NodeId> still;
  for (const NodeId id : ids) {
    if (run.isCandidate(id)) still.push_back(id);
  }
  return still;
}

void Core::endRun() {
  const OwnerLock lock(*this);
  dropRun();
}

void Core::dropRun() {
  graph_.assertLocked();
  if (run_ == nullptr) return;
  run_->cancelled = true;
  run_->detach();
  run_.reset();
  if (live_ != nullptr && live_->isBroken()) dropLive();
}

// With the run that relies on them.
void Core::dropLive() {
  if (live_ == nullptr) return;
  live_->markBroken();
  live_->detach();
  live_.reset();
  if (run_ != nullptr && run_->live() != nullptr) dropRun();
}

std::unique_ptr<SaveJob> Core::save() {
  const OwnerLock lock(*this);
  return begin<SaveJob>(std::make_shared<CheckpointWriter>(graph_));
}

std::unique_ptr<RetainedJob> Core::retained(RetainedQuery query) {
  const OwnerLock lock(*this);
  auto builder = std::make_shared<SnapshotBuilder>(graph_, query.now);
  return begin<RetainedJob>(std::move(builder), std::move(query));
}

// No copy may stay an observer of the graph without a job that detaches it.
template <typename Job, typename Copy, typename... More>
std::unique_ptr<Job> Core::begin(std::shared_ptr<Copy> copy, More&&... more) try {
  std::erase_if(copies_, [](const auto& c) { return c.expired(); });
  copies_.push_back(copy);
  copy->attach();
  return std::make_unique<Job>(shared_from_this(), copy, std::forward<More>(more)...);
} catch (const std::bad_alloc&) {
  copy->detach();
  throw;
}

bool Core::isSmall(const RetainedQuery& query) const {
  constexpr uint64_t kFewSteps = 1 << 18;
  const uint64_t size = graph_.nodeCount() + graph_.edgeCount() + query.edges.size();
  return isSmall() && query.itemOf.size() + query.sizes.size() + query.members.size() + query.roots.size() <= kSmallIds &&
         (1 + query.ends.size()) * (1 + size) <= kFewSteps;
}

void Core::forget(GraphCopy& copy) {
  const OwnerLock lock(*this);
  copy.detach();
}

void Core::dropJobs() {
  graph_.assertLocked();
  dropRun();
  dropLive();
  for (const auto& weak : copies_) {
    if (const auto copy = weak.lock()) {
      copy->cancelled = true;
      copy->detach();
    }
  }
  copies_.clear();
}

bool Core::load(std::span<const uint8_t> bytes) {
  const OwnerLock lock(*this);
  dropJobs();
  graph_.clear();
  bool whole = false;
  try {
    whole = decodeCheckpoint(bytes, graph_);
    if (whole) graph_.listFreeable();
  } catch (...) {
    graph_.clear();
    throw;
  }
  if (!whole) graph_.clear();
  graph_.afterLoad();
  graph_.assertInvariants();
  return whole;
}

void Core::clear() {
  const OwnerLock lock(*this);
  dropJobs();
  graph_.clear();
}

std::vector<NodeId> Core::takeFreeable() { return graph_.takeFreeable(); }

// ----------------------------------------------------------------------------------------------------------- jobs

void MarkJob::work() try {
  if (done_) return;
  const auto started = std::chrono::steady_clock::now();
  core_->runSteps(run_->cancelled, [this] { return advance(SIZE_MAX); });
  while (!run_->cancelled && !run_->sortCandidates(kSorted)) continue;
  finish();
  durationMs_ += msSince(started);
} catch (const std::bad_alloc&) {
  outOfMemory_ = true;
}

bool MarkJob::step(size_t nodes) try {
  {
    const Locked lock(core_->mutex_);
    if (!run_->cancelled && !advance(nodes)) return false;
  }
  if (!run_->cancelled && !run_->sortCandidates(nodes)) return false;
  finish();
  return true;
} catch (const std::bad_alloc&) {
  outOfMemory_ = true;
  return true;
}

// Without memory, live marks are not valid any more; the owner drops them with the run. They are broken before the
// lock is released: later the run may have been cancelled, and they may be another's. Sorting does not touch them.
bool MarkJob::advance(size_t nodes) try {
  return run_->step(nodes);
} catch (const std::bad_alloc&) {
  if (run_->live() != nullptr) run_->live()->markBroken();
  throw;
}

bool MarkJob::tryAtOnce() {
  if (run_->live() == nullptr) return false;
  const auto started = std::chrono::steady_clock::now();
  for (int n = 0; n < kStepsAtOnce && !done_; n++) done_ = step(kNodesAtOnce);
  durationMs_ = msSince(started);
  return done_;
}

void MarkJob::finish() {
  const Locked lock(core_->mutex_);
  cancelled_ = run_->cancelled;
  if (!cancelled_) run_->finish();
  counts_ = run_->counts();
}

MarkCounts MarkJob::result() const {
  if (outOfMemory_) {
    // The run is invalid: the next one may begin.
    if (core_->run_ == run_) core_->endRun();
    throw outOfMemory("mark");
  }
  if (cancelled_ || run_->cancelled) throw canceled("mark");
  return counts_;
}

SaveJob::~SaveJob() { core_->forget(*writer_); }

void SaveJob::work() try {
  const auto& cancelled = writer_->cancelled;
  while (!cancelled && !writer_->done()) {
    core_->runSteps(cancelled, [this] { return writer_->gather(); });
    if (!cancelled) writer_->closeFrame();
  }
  finish();
} catch (const std::bad_alloc&) {
  outOfMemory_ = true;
}

bool SaveJob::step() try {
  if (!writer_->cancelled && !writer_->done()) {
    const Locked lock(core_->mutex_);
    if (writer_->gather()) writer_->closeFrame();
    return false;
  }
  finish();
  return true;
} catch (const std::bad_alloc&) {
  outOfMemory_ = true;
  return true;
}

void SaveJob::finish() {
  {
    const Locked lock(core_->mutex_);
    cancelled_ = writer_->cancelled;
    writer_->detach();
  }
  if (!cancelled_) bytes_ = writer_->finish();
}

std::vector<uint8_t> SaveJob::result() {
  if (outOfMemory_) throw outOfMemory("save");
  if (cancelled_) throw canceled("save");
  return std::move(bytes_);
}

RetainedJob::~RetainedJob() { core_->forget(*builder_); }

void RetainedJob::work() {
  const auto started = std::chrono::steady_clock::now();
  advance([this] {
    query_.check();
    core_->runSteps(builder_->cancelled, [this] { return builder_->gather(); });
    sum();
    return true;
  });
  durationMs_ = msSince(started);
}

bool RetainedJob::step() {
  return advance([this] {
    {
      const Locked lock(core_->mutex_);
      if (!builder_->cancelled && !builder_->gather()) return false;
    }
    query_.check();
    sum();
    return true;
  });
}

void RetainedJob::sum() {
  Cancellation cancellation(builder_->cancelled);
  if (builder_->cancelled) throw Cancelled();
  sums_ = retainedSums(builder_->build(query_.roots, query_.edges, cancellation), query_, cancellation);
}

template <typename Body>
bool RetainedJob::advance(Body body) {
  try {
    if (!body()) return false;
  } catch (const Cancelled&) {
    error_ = canceled("retained");
  } catch (const GraphError& error) {
    error_ = error;
  } catch (const std::bad_alloc&) {
    error_ = outOfMemory("retained");
  }
  const Locked lock(core_->mutex_);
  builder_->detach();
  return true;
}

RetainedSums RetainedJob::result() {
  if (error_.has_value()) throw *error_;
  // Also when the result existed already: the caller must not see the race.
  if (builder_->cancelled) throw canceled("retained");
  return std::move(sums_);
}

}  // namespace ebbtide
