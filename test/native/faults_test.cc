// What goes wrong must stay harmless, without Node: memory that runs out at any allocation, counts that are not what they
// should be, and changes that never let a run come to its end. npm run test:sanitize.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <new>

#include "core.h"

using namespace ebbtide;

namespace {

using Words = std::vector<uint32_t>;

// How many allocations still succeed before one fails; below zero, all do.
long left = -1;

void* allocated(size_t bytes) {
  if (left >= 0 && left-- == 0) throw std::bad_alloc();
  if (void* got = std::malloc(bytes == 0 ? 1 : bytes)) return got;
  throw std::bad_alloc();
}

// Has the nth allocation of the body fail, counted from zero.
template <typename Body>
void failing(long nth, Body body) {
  left = nth;
  try {
    body();
  } catch (...) {
    left = -1;
    throw;
  }
  left = -1;
}

constexpr uint32_t kThing = kPresent | kCollectible;

void set(Words& ops, NodeId id, uint32_t flags) { ops.insert(ops.end(), {kOpSet, id, flags, 0, 0}); }
void edge(Words& ops, uint32_t code, NodeId from, NodeId to, uint32_t kind = kLabel) {
  ops.insert(ops.end(), {code, from, to, kind});
}

// The kind of error that a body ends with; empty when it ends well.
std::string errorOf(const std::function<void()>& body) try {
  body();
  return "";
} catch (const GraphError& error) {
  return error.kind();
} catch (const std::bad_alloc&) {
  return kNoMemory;
}

size_t found(const std::shared_ptr<Core>& core) {
  const auto job = core->markLive(0, LiveFault::kNone);
  job->work();
  job->result();
  const size_t candidates = core->candidates().size();
  core->endRun();
  return candidates;
}

// Node 2 leads to more than a trial looks at, and loses one of its two referrers again and again: everything is counted anew, but
// not again and again.
bool runsEnd() {
  constexpr NodeId kNodes = 300'000;
  auto core = std::make_shared<Core>();
  Words ops;
  for (NodeId id = 0; id < kNodes; id++) set(ops, id, id < 2 ? kPresent | kRoot : kThing);
  for (NodeId id = 12; id < kNodes; id++) edge(ops, kOpAdd, id == 12 ? 0 : 12 + (id - 13) / 2, id);
  for (const NodeId root : {0u, 1u}) edge(ops, kOpAdd, root, 2);
  for (NodeId id = 3; id < 12; id++) {
    edge(ops, kOpAdd, 2, id);
    for (NodeId n = 0; n < 240; n++) edge(ops, kOpAdd, id, 12 + 240 * id + n);
  }
  core->apply(ops);
  if (found(core) != 0) return false;
  core->apply(Words{kOpRemove, 1, 2, kLabel});
  const auto job = core->markLive(0, LiveFault::kNone);
  for (uint32_t steps = 1; !job->step(128); steps++) {
    if (steps > 40'000) return false;
    if (steps % 1000 == 0) core->apply(Words{steps % 2000 == 0 ? kOpRemove : kOpAdd, 1, 2, kLabel});
  }
  job->result();
  core->endRun();
  return found(core) == 0 && core->wrongLive()->empty();
}

// A job's marks break, and a batch comes before its promise settles.
bool jobRunsOut() {
  constexpr NodeId kRoots = 100;
  constexpr NodeId kOthers = 40;
  Words ops;
  Words undo;
  for (NodeId id = 0; id < kRoots + kOthers; id++) set(ops, id, id < kRoots ? kPresent | kRoot : kThing);
  for (NodeId id = 0; id < kRoots; id++) {
    for (NodeId n = 0; n < 240; n++) {
      edge(ops, kOpAdd, id, kRoots + n % kOthers);
      edge(undo, kOpRemove, id, kRoots + n % kOthers);
    }
  }
  for (long nth = 0; nth < 16; nth++) {
    auto core = std::make_shared<Core>();
    core->apply(ops);
    const auto job = core->markLive(0, LiveFault::kNone);
    failing(nth, [&] {
      while (!job->step(100)) continue;
    });
    core->apply(undo);
    const std::string error = errorOf([&] { job->result(); });
    if (error != "" && error != kNoMemory) return false;
    core->endRun();
    if (found(core) != kOthers || !core->wrongLive()->empty()) return false;
  }
  return true;
}

// They break in the middle of a batch.
bool batchRunsOut() {
  constexpr NodeId kOthers = 400;
  Words ops;
  Words undo;
  for (NodeId id = 0; id <= kOthers; id++) set(ops, id, id == 0 ? kPresent | kRoot : kThing);
  for (NodeId n = 0; n < kOthers * 400; n++) {
    const uint32_t kind = n % 2 == 0 ? kLabel : kStructural;
    edge(ops, kOpAdd, 0, 1 + n / 2 % kOthers, kind);
    edge(undo, kOpRemove, 0, 1 + n / 2 % kOthers, kind);
  }
  for (long nth = 0; nth < 8; nth++) {
    auto core = std::make_shared<Core>();
    core->apply(ops);
    const auto job = core->markLive(0, LiveFault::kNone);
    for (int n = 0; n < 4; n++) job->step(1);
    const std::string applied = errorOf([&] { failing(nth, [&] { core->apply(undo); }); });
    if (applied != "" && applied != kNoMemory) return false;
    while (!job->step(1000)) continue;
    errorOf([&] { job->result(); });
    core->endRun();
    if (applied != "") core->apply(undo);
    if (found(core) != kOthers || !core->wrongLive()->empty()) return false;
  }
  return true;
}

// In-degrees say that a node may be freed to which edges lead.
bool falseDegreesBreakMarks() {
  Graph graph;
  graph.loadNode(0, kPresent | kRoot, 0, 0);
  graph.loadNode(1, 0, 0, 0);
  graph.loadNode(2, kThing, 2, 0);
  uint32_t* words = graph.loadEdges(0, 2);
  words[0] = words[1] = edgeWord(1, kLabel);
  LiveMarks live(graph, 0, LiveFault::kNone);
  const auto apply = [&](const Words& ops) {
    live.beforeBatch(ops);
    graph.apply(ops);
    live.afterBatch(ops, true);
  };
  while (!live.step()) continue;
  if (live.countOf(1, kPlain) != 2 || live.isBroken()) return false;
  apply(Words{kOpFree, 1, kOpSet, 1, kThing, 0, 0});
  if (!live.isBroken()) return false;
  for (int n = 0; n < 2; n++) apply(Words{kOpRemove, 0, 1, kLabel});
  return live.countOf(1, kPlain) == 0;
}

// A batch is refused, and taking it back runs out of memory: what is under way ends with the graph.
bool lostGraphEndsJobs() {
  constexpr NodeId kNodes = 3000;
  bool wasLost = false;
  for (long nth = 0; nth < 60; nth++) {
    for (const bool isLive : {false, true}) {
      for (const bool isFirst : {false, true}) {
        Words ops;
        for (NodeId id = 0; id < kNodes; id++) set(ops, id, id < 100 ? kPresent | kRoot : kThing);
        for (NodeId id = 100; id < kNodes; id++) edge(ops, kOpAdd, id - 100, id);
        auto core = std::make_shared<Core>();
        if (!isFirst) core->apply(ops);
        const auto mark = isLive ? core->markLive(0, LiveFault::kNone) : core->mark(0, Barrier::kOn);
        const auto save = core->save();
        for (int n = 0; n < 4; n++) mark->step(16);
        Words bad = ops;
        if (!isFirst) {
          bad.clear();
          for (NodeId id = 100; id < 200; id++) edge(bad, kOpRemove, id - 100, id);
        }
        bad.push_back(kOpAdd);
        if (errorOf([&] { failing(nth, [&] { core->apply(bad); }); }).empty()) return false;
        const bool isLost = core->graph().clears() > 0;
        wasLost = wasLost || isLost;
        while (!mark->step(16)) continue;
        while (!save->step()) continue;
        const std::string marked = errorOf([&] { mark->result(); });
        const std::string saved = errorOf([&] { save->result(); });
        if (isLost && (marked.empty() || saved != "Canceled")) return false;
        core->endRun();
        if (isLost || isFirst) core->apply(ops);
        if (found(core) != 0 || !core->wrongLive()->empty()) return false;
      }
    }
  }
  return wasLost;
}

// Memory runs out as a run sorts its candidates: the run ends, and the live marks stay. Earlier, they are dropped.
bool sortRunsOut() {
  int kept = 0;
  for (long nth = 0; nth < 60; nth++) {
    auto core = std::make_shared<Core>();
    Words ops;
    for (NodeId id = 0; id < 20; id++) set(ops, id, id == 0 ? kPresent | kRoot : kThing);
    for (NodeId id = 1; id < 10; id++) edge(ops, kOpAdd, id - 1, id);
    core->apply(ops);
    auto job = core->markLive(0, LiveFault::kNone);
    failing(nth, [&] {
      while (!job->step(100)) continue;
    });
    if (errorOf([&] { job->result(); }).empty()) return kept > 0 && core->candidates().size() == 10;
    job = core->markLive(0, LiveFault::kNone);
    job->work();
    kept += job->result().edgesFollowed == 0 ? 1 : 0;
    if (core->candidates().size() != 10) return false;
    core->endRun();
    if (!core->wrongLive()->empty()) return false;
  }
  return false;
}

// A run, a save or a report that cannot begin is not in the way of the next.
bool beginsAnew() {
  for (const int what : {0, 1, 2, 3}) {
    int failures = 0;
    for (long nth = 0; nth < 20; nth++) {
      auto core = std::make_shared<Core>();
      core->apply(Words{kOpSet, 0, kPresent | kRoot, 0, 0, kOpSet, 1, kThing, 0, 0});
      const std::string error = errorOf([&] {
        failing(nth, [&] {
          if (what == 0) core->mark(0, Barrier::kOn);
          else if (what == 1) core->markLive(0, LiveFault::kNone);
          else if (what == 2) core->save();
          else core->retained(RetainedQuery{0, {}, {}, {}, {}, {}, {}});
        });
      });
      failures += error == kNoMemory ? 1 : 0;
      core->apply(Words{kOpAdd, 0, 1, kLabel});
      if (error.empty()) core->endRun();
      if (found(core) != 0 || core->save()->step()) return false;
    }
    if (failures == 0) return false;
  }
  return true;
}

}  // namespace

// Not inline: where only one of a pair is, the compiler takes the other for a stranger.
#define OURS [[gnu::noinline]]
OURS void* operator new(size_t bytes) { return allocated(bytes); }
OURS void* operator new[](size_t bytes) { return allocated(bytes); }
OURS void operator delete(void* at) noexcept { std::free(at); }
OURS void operator delete[](void* at) noexcept { std::free(at); }
OURS void operator delete(void* at, size_t) noexcept { std::free(at); }
OURS void operator delete[](void* at, size_t) noexcept { std::free(at); }

// Runs the cases that are named, by default all.
int main(int count, char** names) {
  const std::pair<const char*, bool (*)()> cases[] = {
      {"runsEnd", runsEnd},
      {"jobRunsOut", jobRunsOut},
      {"batchRunsOut", batchRunsOut},
      {"falseDegreesBreakMarks", falseDegreesBreakMarks},
      {"lostGraphEndsJobs", lostGraphEndsJobs},
      {"sortRunsOut", sortRunsOut},
      {"beginsAnew", beginsAnew},
  };
  int failures = 0;
  for (const auto& [name, run] : cases) {
    bool wanted = count < 2;
    for (int i = 1; i < count; i++) wanted = wanted || std::string(names[i]) == name;
    if (wanted && !run()) failures += std::printf("faults_test: %s went wrong\n", name) > 0;
  }
  if (failures == 0) std::printf("faults_test: ok\n");
  return failures == 0 ? 0 : 1;
}
