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
  if (!threadsTakeTurns()) failures += std::printf("live_test: a thread's marks are wrong\n") > 0;
  if (failures == 0) std::printf("live_test: ok\n");
  return failures == 0 ? 0 : 1;
}
