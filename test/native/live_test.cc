// Stories of live marks, without Node: random changes on few nodes, so that cycles close and open, taken up in steps
// of any size. npm run test:sanitize; LIVE_STORIES=n LIVE_SEED=n for more. With each part of the mechanism left out, a
// story must go wrong.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "core.h"

using namespace ebbtide;

namespace {

using Words = std::vector<uint32_t>;
using Random = std::mt19937;

struct Story {
  explicit Story(uint32_t seed, LiveFault fault) : random(seed), live(graph, 0, fault) {}

  uint32_t below(uint32_t n) { return random() % n; }

  void apply(const Words& ops) {
    live.beforeBatch(ops);
    bool applied = true;
    try {
      graph.apply(ops);
    } catch (const GraphError&) {
      applied = false;
    }
    live.afterBatch(ops, applied);
  }

  void appendSet(Words& ops, NodeId id) {
    static constexpr uint32_t kBits[] = {kPresent | kCollectible, kPresent | kCollectible, kPresent | kCollectible, 0,
                                         kPresent | kRoot, kPresent | kRoot | kExpires, kRoot | kCollectible, kPresent};
    const int64_t expiry = static_cast<int64_t>(below(8)) - 3;
    ops.insert(ops.end(), {kOpSet, id, kBits[below(8)] | below(3) << 8, static_cast<uint32_t>(expiry), static_cast<uint32_t>(expiry >> 32)});
  }

  // Its edges go one by one, and another node gets the id, mostly in the same batch.
  void rebirth(Words& ops, NodeId id) {
    graph.forEach(0, ids, [&](NodeId from) {
      const Words pairs = graph.edgePairs(from);
      for (size_t i = 0; i < pairs.size(); i += 2) {
        if (from == id || pairs[i] == id) ops.insert(ops.end(), {kOpRemove, from, pairs[i], pairs[i + 1]});
      }
    });
    ops.insert(ops.end(), {kOpSet, id, 0, 0, 0, kOpFree, id});
    if (below(3) > 0) appendSet(ops, id);
  }

  void change() {
    Words ops;
    for (uint32_t n = below(4); n < 4; n++) {
      const uint32_t code = below(12);
      const NodeId a = below(ids);
      const NodeId b = below(ids);
      const uint32_t kind = below(6) == 0 ? kFlatEdge : below(2);
      if (code < 2) appendSet(ops, a);
      else if (code == 2) rebirth(ops, a);
      else if (code < 7 || !graph.exists(a) || graph.degree(a) == 0) ops.insert(ops.end(), {kOpAdd, a, b, kind});
      else {
        const Words pairs = graph.edgePairs(a);
        const size_t at = below(static_cast<uint32_t>(pairs.size() / 2));
        ops.insert(ops.end(), {kOpRemove, a, pairs[2 * at], pairs[2 * at + 1]});
      }
    }
    apply(ops);
  }

  // More edges of one node than a block takes, and back.
  void manyEdges() {
    Words ops;
    const NodeId from = below(ids);
    const bool adds = graph.degree(from) < 200;
    const Words pairs = graph.edgePairs(from);
    for (uint32_t n = 0; n < 300; n++) {
      if (adds) ops.insert(ops.end(), {kOpAdd, from, below(ids), below(3)});
      else if (n < pairs.size() / 2) ops.insert(ops.end(), {kOpRemove, from, pairs[2 * n], pairs[2 * n + 1]});
    }
    apply(ops);
  }

  void update() {
    do {
      if (live.isDoubtful()) live.restart();
      while (!live.step(1 + below(200))) {}
    } while (live.isDoubtful());
  }

  // Whether all that is reached is marked.
  bool isSafe() {
    std::vector<std::pair<NodeId, bool>> open;
    std::set<std::pair<NodeId, bool>> seen;
    const auto reach = [&](NodeId id, bool flat) {
      if (seen.insert({id, flat}).second) open.push_back({id, flat});
    };
    graph.forEach(0, graph.limit(), [&](NodeId id) {
      if (graph.isRoot(id, live.now())) reach(id, false);
    });
    while (!open.empty()) {
      const auto [id, flat] = open.back();
      open.pop_back();
      if ((live.marksOf(id) & (flat ? kFlat : kPlain)) == 0) return false;
      const Words pairs = graph.edgePairs(id);
      for (size_t i = 0; i < pairs.size(); i += 2) {
        if (!flat) reach(pairs[i], pairs[i + 1] == kFlatEdge);
        else if (pairs[i + 1] == kStructural) reach(pairs[i], true);
      }
    }
    return true;
  }

  // Why it went wrong; null when it did not.
  const char* run() {
    Words ops;
    for (NodeId id = 0; id < ids; id++) appendSet(ops, id);
    apply(ops);
    for (int n = 0; n < 60; n++) {
      if (live.isBroken()) return "a count is not what the ops say";
      const uint32_t what = below(20);
      if (what == 0) manyEdges();
      else if (what == 1) live.setNow(static_cast<int64_t>(below(8)) - 3);
      else if (what == 2 && live.isUpToDate()) live.sift(below(10));
      else change();
      for (uint32_t steps = below(6); steps > 0; steps--) live.step(1 + below(3));
      if (below(3) == 0 && live.revive(below(2) == 0 ? 3 : SIZE_MAX) && !isSafe()) return "a reached node is not marked";
      if (below(4) != 0) continue;
      update();
      if (!wrongLiveMarks(graph, live).empty()) return "marks or counts are not what a walk finds";
      if (!isSafe()) return "a reached node is not marked once live marks are up to date";
    }
    return nullptr;
  }

  const uint32_t ids = 14;
  Random random;
  Graph graph;
  LiveMarks live;
};

int number(const char* name, int otherwise) {
  const char* given = std::getenv(name);
  return given == nullptr ? otherwise : std::atoi(given);
}

// A cycle that is too large for a trial is found all the same: everything is counted anew.
bool largeCycleGoes() {
  auto core = std::make_shared<Core>();
  Words ops = {kOpSet, 0, kPresent | kRoot, 0, 0};
  constexpr NodeId kCycle = 5000;
  for (NodeId id = 1; id <= kCycle; id++) ops.insert(ops.end(), {kOpSet, id, kPresent | kCollectible, 0, 0});
  for (NodeId id = 1; id <= kCycle; id++) ops.insert(ops.end(), {kOpAdd, id, id % kCycle + 1, kLabel});
  ops.insert(ops.end(), {kOpAdd, 0, 1, kLabel});
  core->apply(ops);
  const auto run = [&] {
    const auto job = core->markLive(0, LiveFault::kNone);
    job->work();
    job->result();
    const size_t found = core->candidates().size();
    core->endRun();
    return found;
  };
  if (run() != 0) return false;
  core->apply(Words{kOpRemove, 0, 1, kLabel});
  return run() == kCycle && core->wrongLive()->empty();
}

// Pins keep for a run, and not for longer; what was allocated in it is not a candidate.
bool runsAreAsBefore() {
  auto core = std::make_shared<Core>();
  Words ops;
  for (NodeId id = 0; id < 6; id++) ops.insert(ops.end(), {kOpSet, id, kPresent | kCollectible, 0, 0});
  for (const NodeId from : {1u, 3u}) ops.insert(ops.end(), {kOpAdd, from, from + 1, kLabel});
  ops.insert(ops.end(), {kOpAdd, 4, 3, kLabel});
  core->apply(ops);
  core->markLive(0, LiveFault::kNone)->work();
  bool fine = core->candidates() == Words{0, 1, 5, 2, 3, 4} && core->markFrom(Words{3}) == 2 && core->markFrom(Words{4}) == 0;
  fine &= core->candidates() == Words{0, 1, 5, 2};
  // Node 0 goes, and another object gets its id; node 5 is referred to.
  core->apply(Words{kOpSet, 0, 0, 0, 0, kOpFree, 0, kOpSet, 0, kPresent | kCollectible, 0, 0, kOpAdd, 3, 5, kLabel});
  fine &= core->stillCandidates(Words{0, 1, 2, 5}) == Words{1, 2};
  core->endRun();
  core->markLive(0, LiveFault::kNone)->work();
  fine &= core->candidates() == Words{0, 1, 2, 3, 4, 5};
  core->endRun();
  return fine && core->wrongLive()->empty();
}

// A thread takes up what changes, while changes go on: for the thread sanitizer.
bool threadsTakeTurns() {
  constexpr NodeId kNodes = 20'000;
  auto core = std::make_shared<Core>();
  Random random(7);
  Words ops;
  for (NodeId id = 0; id < kNodes; id++) {
    ops.insert(ops.end(), {kOpSet, id, id % 50 == 0 ? kPresent | kRoot : kPresent | kCollectible, 0, 0});
  }
  core->apply(ops);
  std::vector<std::array<NodeId, 2>> edges;
  const auto anyNode = [&] { return static_cast<NodeId>(random() % kNodes); };
  const auto change = [&] {
    Words batch;
    for (int n = 0; n < 20; n++) {
      if (edges.size() < kNodes || random() % 2 == 0) {
        edges.push_back({anyNode(), anyNode()});
        batch.insert(batch.end(), {kOpAdd, edges.back()[0], edges.back()[1], kLabel});
      } else {
        std::swap(edges[random() % edges.size()], edges.back());
        batch.insert(batch.end(), {kOpRemove, edges.back()[0], edges.back()[1], kLabel});
        edges.pop_back();
      }
    }
    core->apply(batch);
  };
  for (int n = 0; n < 1000; n++) change();
  for (int round = 0; round < 8; round++) {
    const auto job = core->markLive(0, LiveFault::kNone);
    std::thread thread([&] { job->work(); });
    for (int n = 0; n < 60; n++) change();
    thread.join();
    job->result();
    for (const NodeId id : core->candidates()) {
      if (core->marksOf(id) != 0) return false;
    }
    core->endRun();
  }
  return core->wrongLive()->empty();
}

// Marks are compared while they change; a count that is wrong is found, and the marks are dropped.
bool checksFind() {
  for (const LiveFault fault : {LiveFault::kNone, LiveFault::kEdgeTwice}) {
    auto core = std::make_shared<Core>();
    Random random(3);
    constexpr NodeId kNodes = 9000;
    Words ops;
    for (NodeId id = 0; id < kNodes; id++) {
      ops.insert(ops.end(), {kOpSet, id, id % 40 == 0 ? kPresent | kRoot : kPresent | kCollectible, 0, 0});
    }
    for (NodeId id = 0; id < kNodes; id++) ops.insert(ops.end(), {kOpAdd, id, static_cast<NodeId>(random() % kNodes), kLabel});
    core->apply(ops);
    if (core->checkLive()->result().has_value()) return false;
    core->markLive(0, fault)->work();
    core->endRun();
    const auto job = core->checkLive();
    int steps = 0;
    do {
      // The first edge leads from a root.
      const NodeId from = static_cast<NodeId>(random() % kNodes) / 40 * 40;
      if (steps < 20) core->apply(Words{kOpAdd, from, static_cast<NodeId>(random() % kNodes), kLabel});
      steps++;
    } while (!job->step());
    const auto wrong = job->result();
    if (!wrong.has_value() || wrong->empty() != (fault == LiveFault::kNone)) return false;
    if (core->hasLive() != wrong->empty()) return false;
  }
  return true;
}

// A run, or the end of the marks, ends a comparison; it says nothing then.
bool checksEnd() {
  auto core = std::make_shared<Core>();
  core->apply(Words{kOpSet, 0, kPresent | kRoot, 0, 0});
  const auto run = [&] {
    core->markLive(0, LiveFault::kNone)->work();
    core->endRun();
  };
  run();
  auto job = core->checkLive();
  run();
  if (!job->step() || job->result().has_value()) return false;
  job = core->checkLive();
  core->clear();
  if (!job->step() || job->result().has_value()) return false;
  run();
  job = core->checkLive();
  job.reset();
  core->apply(Words{kOpSet, 1, kPresent | kCollectible, 0, 0});
  return core->wrongLive()->empty();
}

// Garbage is known when nothing is left to take up: how much, which, and what is new.
bool garbageIsKnown() {
  auto core = std::make_shared<Core>();
  Words ops = {kOpSet, 0, kPresent | kRoot | 1u << 8, 0, 0};
  for (NodeId id = 1; id < 6; id++) ops.insert(ops.end(), {kOpSet, id, kPresent | kCollectible | 2u << 8, 0, 0});
  for (NodeId id = 0; id < 5; id++) ops.insert(ops.end(), {kOpAdd, id, id + 1, kLabel});
  core->apply(ops);
  core->markLive(0, LiveFault::kNone)->work();
  core->endRun();
  const auto all = [&] { return core->garbage(0, SIZE_MAX); };
  bool fine = core->freshGarbage().empty() && all().empty() && core->garbageByType()[2] == 0;
  core->apply(Words{kOpRemove, 2, 3, kLabel});
  fine &= core->bringUpToDate(SIZE_MAX) && core->garbageByType()[2] == 3 && all().size() == 3 && core->freshGarbage().size() == 3;
  core->apply(Words{kOpAdd, 2, 4, kLabel});
  fine &= core->bringUpToDate(SIZE_MAX) && core->garbageByType()[2] == 1 && all() == Words{3} && core->freshGarbage().empty();
  core->apply(Words{kOpRemove, 3, 4, kLabel, kOpSet, 3, 0, 0, 0, kOpFree, 3});
  fine &= core->bringUpToDate(SIZE_MAX) && core->garbageByType()[2] == 0 && all().empty();
  // What refers to it comes after it, or in the same batch; then all goes, and again.
  for (NodeId id = 10; fine && id < 12; id++) {
    core->apply(Words{kOpSet, id, kPresent | kCollectible | 2u << 8, 0, 0, kOpAdd, 0, id, kLabel});
    fine &= core->bringUpToDate(SIZE_MAX) && core->freshGarbage().empty();
  }
  for (int times = 0; fine && times < 2; times++) {
    core->apply(Words{kOpRemove, 0, 10, kLabel, kOpRemove, 0, 11, kLabel});
    fine &= core->bringUpToDate(SIZE_MAX) && core->freshGarbage().size() == 2 && core->freshGarbage().empty();
    core->apply(Words{kOpAdd, 0, 10, kLabel, kOpAdd, 0, 11, kLabel});
    fine &= core->bringUpToDate(SIZE_MAX) && core->freshGarbage().empty();
  }
  // An id that is given out again.
  core->apply(Words{kOpRemove, 0, 10, kLabel});
  fine &= core->bringUpToDate(SIZE_MAX) && core->freshGarbage().size() == 1;
  core->apply(Words{kOpSet, 10, 0, 0, 0, kOpFree, 10});
  core->apply(Words{kOpSet, 10, kPresent | kCollectible | 2u << 8, 0, 0});
  fine &= core->bringUpToDate(SIZE_MAX) && core->freshGarbage() == Words{10};
  return fine && core->wrongLive()->empty();
}

// More than is kept apart comes and lives; then one goes, which is not lost among them.
bool freshIsNotCrowdedOut() {
  constexpr NodeId kMany = (1u << 18) + 100;
  auto core = std::make_shared<Core>();
  core->apply(Words{kOpSet, 0, kPresent | kRoot | 1u << 8, 0, 0});
  core->markLive(0, LiveFault::kNone)->work();
  core->endRun();
  bool fine = core->freshGarbage().empty();
  Words ops;
  for (NodeId id = 1; id <= kMany; id++) {
    ops.insert(ops.end(), {kOpSet, id, kPresent | kCollectible | 2u << 8, 0, 0, kOpAdd, 0, id, kLabel});
    if (id % 4096 != 0 && id != kMany) continue;
    core->apply(ops);
    ops.clear();
    fine &= core->bringUpToDate(SIZE_MAX);
  }
  core->apply(Words{kOpRemove, 0, kMany - 1, kLabel});
  fine &= core->bringUpToDate(SIZE_MAX) && core->freshGarbage() == Words{kMany - 1};
  core->apply(Words{kOpRemove, 0, 5, kLabel});
  return fine && core->bringUpToDate(SIZE_MAX) && core->freshGarbage() == Words{5};
}

}  // namespace

int main() {
  int failures = 0;
  const int stories = number("LIVE_STORIES", 1500);
  const int first = number("LIVE_SEED", 1);
  for (int seed = first; seed < first + stories; seed++) {
    Story story(static_cast<uint32_t>(seed), LiveFault::kNone);
    if (const char* why = story.run()) {
      std::printf("live_test: seed %d: %s\n", seed, why);
      failures++;
      break;
    }
  }
  for (uint8_t fault = 1; fault < static_cast<uint8_t>(LiveFault::kFaults); fault++) {
    int seed = 1;
    while (seed <= stories && Story(static_cast<uint32_t>(seed), static_cast<LiveFault>(fault)).run() == nullptr) seed++;
    if (seed > stories) {
      std::printf("live_test: fault %d was not found\n", fault);
      failures++;
    }
  }
  if (!largeCycleGoes()) failures += std::printf("live_test: a large cycle stayed\n") > 0;
  if (!runsAreAsBefore()) failures += std::printf("live_test: a run is not as before\n") > 0;
  if (!checksFind()) failures += std::printf("live_test: a check found nothing, or what is not there\n") > 0;
  if (!checksEnd()) failures += std::printf("live_test: a check did not end\n") > 0;
  if (!garbageIsKnown()) failures += std::printf("live_test: garbage is not known\n") > 0;
  if (!freshIsNotCrowdedOut()) failures += std::printf("live_test: what is new is crowded out\n") > 0;
  if (!threadsTakeTurns()) failures += std::printf("live_test: a thread's marks are wrong\n") > 0;
  if (failures == 0) std::printf("live_test: ok\n");
  return failures == 0 ? 0 : 1;
}
