// Unit tests of the C++ core without Node, meant to run under sanitizers: npm run test:sanitize.
// A naive model of nodes and edges says what every call must return.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <tuple>

#include "checkpoint.h"
#include "core.h"
#include "crc32c.h"
#include "path.h"

using namespace ebbtide;

namespace {

int failures = 0;

#define EXPECT(condition)                                                \
  do {                                                                   \
    if (!(condition)) {                                                  \
      std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);        \
      failures++;                                                        \
    }                                                                    \
  } while (0)

using Words = std::vector<uint32_t>;

// The rules of a graph, written down as plainly as can be.
struct Model {
  struct Node {
    uint32_t flags;
    int64_t expiry;
  };
  std::map<NodeId, Node> nodes;
  std::multiset<std::tuple<NodeId, NodeId, uint32_t>> edges;

  bool isRoot(const Node& node, int64_t now) const {
    return (node.flags & kRoot) != 0 && ((node.flags & kExpires) == 0 || now <= node.expiry);
  }
  std::set<std::pair<NodeId, bool>> reachable(int64_t now) const {
    std::set<std::pair<NodeId, bool>> seen;
    std::deque<std::pair<NodeId, bool>> queue;
    const auto reach = [&](NodeId id, bool flat) {
      if (seen.insert({id, flat}).second) queue.push_back({id, flat});
    };
    for (const auto& [id, node] : nodes) {
      if (isRoot(node, now)) reach(id, false);
    }
    while (!queue.empty()) {
      const auto [id, flat] = queue.front();
      queue.pop_front();
      for (auto edge = edges.lower_bound({id, 0, 0}); edge != edges.end() && std::get<0>(*edge) == id; ++edge) {
        const auto& [from, to, kind] = *edge;
        if (kind == kStructural) reach(to, flat);
        else if (!flat) reach(to, kind == kFlatEdge);
      }
    }
    return seen;
  }
};

Words setOp(NodeId id, uint32_t flags, int64_t expiry = 0) {
  return {kOpSet, id, flags, static_cast<uint32_t>(expiry), static_cast<uint32_t>(expiry >> 32)};
}

void append(Words& ops, const Words& op) { ops.insert(ops.end(), op.begin(), op.end()); }

MarkCounts runMark(Core& core, int64_t now, Barrier barrier = Barrier::kOn) {
  const auto job = core.mark(now, barrier);
  job->work();
  return job->result();
}

std::vector<uint8_t> runSave(Core& core) {
  const auto job = core.save();
  job->work();
  return job->result();
}

// Each of some nodes a set of its own, and every node below `ids` an item of as many bytes as its id.
RetainedQuery question(NodeId ids, NodeId sets) {
  Words items(ids), members(sets), ends(sets);
  std::vector<double> sizes(ids);
  for (NodeId id = 0; id < ids; id++) {
    items[id] = id;
    sizes[id] = id;
  }
  for (NodeId n = 0; n < sets; n++) {
    members[n] = n * (ids / sets);
    ends[n] = n + 1;
  }
  return {0, items, sizes, members, ends, Words{}, Words{}};
}

bool operator==(const RetainedSums& a, const RetainedSums& b) {
  return a.kept == b.kept && a.total == b.total && a.retained == b.retained && a.reached == b.reached;
}

RetainedSums runRetained(Core& core, RetainedQuery query) {
  const auto job = core.retained(std::move(query));
  job->work();
  return job->result();
}

// A random graph over `ids` ids, in the core and in the model.
void fill(Core& core, Model& model, std::mt19937& random, NodeId ids, size_t edges) {
  Words ops;
  for (NodeId id = 0; id < ids; id++) {
    if (random() % 10 == 0) continue;
    uint32_t flags = kCollectible | (random() % 8) << 8 | (random() % 6 != 0 ? kPresent : 0u);
    if (random() % 8 == 0) flags |= kRoot;
    if (random() % 8 == 0) flags |= kExpires;
    if (random() % 16 == 0) flags |= kConditional;
    const auto expiry = static_cast<int64_t>(random() % 100) - 50;
    append(ops, setOp(id, flags, expiry));
    model.nodes[id] = {flags, expiry};
  }
  for (size_t n = 0; n < edges; n++) {
    const NodeId from = random() % ids;
    const NodeId to = random() % ids;
    const uint32_t kind = random() % kEdgeKinds;
    if (!model.nodes.contains(from) || !model.nodes.contains(to)) continue;
    append(ops, {kOpAdd, from, to, kind});
    model.edges.insert({from, to, kind});
  }
  core.apply(ops);
}

void expectMarks(Core& core, const Model& model, int64_t now) {
  const auto reachable = model.reachable(now);
  for (const auto& [id, node] : model.nodes) {
    const uint32_t wanted = (reachable.contains({id, false}) ? kPlain : 0u) | (reachable.contains({id, true}) ? kFlat : 0u);
    EXPECT((core.marksOf(id) & kReached) == wanted);
  }
}

// ------------------------------------------------------------------------------------------------------------ tests

void crcKnowsItsCheckValue() {
  const auto* digits = reinterpret_cast<const uint8_t*>("123456789");
  EXPECT(crc32c(digits, 9) == 0xe3069283u);
  EXPECT(crc32cPortable(digits, 9) == 0xe3069283u);
  std::vector<uint8_t> bytes(1000);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(i * 7);
  for (size_t n = 0; n < bytes.size(); n += 13) EXPECT(crc32c(bytes.data(), n, 5) == crc32cPortable(bytes.data(), n, 5));
}

void flatMapKeepsWhatItIsTold() {
  std::mt19937 random(1);
  FlatMap<uint32_t> map;
  std::map<uint32_t, uint32_t> model;
  for (int i = 0; i < 20'000; i++) {
    const uint32_t key = random() % 500 * 4;
    if (random() % 2 == 0) {
      map.at(key) = static_cast<uint32_t>(i);
      model[key] = static_cast<uint32_t>(i);
    } else {
      EXPECT(map.erase(key) == (model.erase(key) == 1));
    }
  }
  EXPECT(map.size() == model.size());
  for (const auto& [key, value] : model) EXPECT(map.find(key) != nullptr && *map.find(key) == value);
}

// Every size class, the step to a big list and back, repeated edges, and removal in another order.
void edgesOfEverySizeComeAndGo() {
  std::mt19937 random(2);
  EdgeStore store;
  Node node{};
  std::multiset<uint32_t> model;
  for (const size_t peak : {3u, 40u, 254u, 255u, 256u, 3000u}) {
    while (model.size() < peak) {
      const uint32_t word = random() % 2000;
      store.add(node, word);
      model.insert(word);
    }
    Words words;
    store.sorted(node, words);
    EXPECT(std::equal(words.begin(), words.end(), model.begin(), model.end()));
    EXPECT(store.degree(node) == model.size());
    EXPECT(!store.remove(node, 2001));
    std::shuffle(words.begin(), words.end(), random);
    for (const uint32_t word : words) {
      EXPECT(store.remove(node, word));
      model.erase(model.find(word));
      if (model.size() % 97 == 0) EXPECT(store.degree(node) == model.size());
    }
    EXPECT(node.degree == 0 && node.slot == 0);
  }
}

void marksAreTheClosure() {
  std::mt19937 random(3);
  for (int round = 0; round < 60; round++) {
    const auto core = std::make_shared<Core>();
    Model model;
    fill(*core, model, random, 1 + random() % 200, random() % 500);
    const auto now = static_cast<int64_t>(random() % 100) - 50;
    const MarkCounts counts = runMark(*core, now);
    expectMarks(*core, model, now);
    std::set<NodeId> reached;
    for (const auto& [id, flat] : model.reachable(now)) reached.insert(id);
    EXPECT(counts.marked == reached.size());
    for (const auto& [id, node] : model.nodes) {
      const auto path = shortestPath(core->graph(), id, now);
      EXPECT(path.empty() == !reached.contains(id));
      EXPECT(path.empty() || (path.back() == id && model.isRoot(model.nodes.at(path.front()), now)));
    }
    core->endRun();
  }
}

void invalidBatchesChangeNothing() {
  std::mt19937 random(4);
  for (int round = 0; round < 60; round++) {
    const auto core = std::make_shared<Core>();
    Model model;
    fill(*core, model, random, 20, 40);
    const auto before = runSave(*core);
    Words ops;
    for (int i = 0; i < 30; i++) {
      const uint32_t code = random() % 5;
      ops.push_back(code);
      for (size_t n = 1; n < Graph::opLength(code); n++) ops.push_back(random() % 50 == 0 ? random() : random() % 20);
    }
    ops.push_back(9);
    try {
      core->apply(ops);
      EXPECT(!"an invalid batch was accepted");
    } catch (const GraphError&) {
    }
    EXPECT(runSave(*core) == before);
  }
}

void checkpointsComeBack() {
  std::mt19937 random(5);
  for (int round = 0; round < 30; round++) {
    const auto core = std::make_shared<Core>();
    Model model;
    fill(*core, model, random, 300, 900);
    // A big list, a wide in-degree, and ids in frames far away.
    Words ops = setOp(140'000, kPresent);
    append(ops, setOp(1'000'000'000, 0));
    for (NodeId id = 200'000; id < 200'600; id++) {
      append(ops, setOp(id, kPresent | kCollectible));
      append(ops, {kOpAdd, 140'000, id, kLabel});
      append(ops, {kOpAdd, id, 140'000, kStructural});
    }
    core->apply(ops);
    const auto bytes = runSave(*core);
    const auto other = std::make_shared<Core>();
    EXPECT(other->load(bytes));
    EXPECT(runSave(*other) == bytes);
    EXPECT(other->graph().inDegree(140'000) == 600);
    EXPECT(other->takeFreeable().back() == 1'000'000'000);
  }
}

// No damage, whether the checksums notice or not, may do worse than be refused or give some graph.
void damagedCheckpointsAreRefused() {
  std::mt19937 random(6);
  const auto core = std::make_shared<Core>();
  Model model;
  fill(*core, model, random, 100, 300);
  const auto bytes = runSave(*core);
  for (size_t i = 0; i < bytes.size(); i++) {
    auto damaged = bytes;
    damaged[i] ^= static_cast<uint8_t>(1u << random() % 8);
    EXPECT(!core->load(damaged));
    EXPECT(core->graph().nodeCount() == 0 && core->graph().limit() == 0);
    damaged.resize(i);
    EXPECT(!core->load(damaged));
  }
  for (int round = 0; round < 3000; round++) {
    auto damaged = bytes;
    for (size_t n = 1 + random() % 4; n > 0; n--) {
      const size_t at = 44 + random() % (damaged.size() - 44);
      damaged[at] = static_cast<uint8_t>(random() % 3 == 0 ? 255 : random());
    }
    const size_t length = damaged.size() - 56;
    const uint32_t frame = crc32c(damaged.data() + 56, length, crc32c(damaged.data() + 44, 8));
    std::memcpy(damaged.data() + 52, &frame, 4);
    if (!core->load(damaged)) continue;
    runMark(*core, 0);
    core->candidates();
    core->endRun();
    runSave(*core);
  }
}

// A frame with one node more than it has ids, all lengths and checksums right.
void framesHoldNoMoreThanTheirIds() {
  const auto core = std::make_shared<Core>();
  Words ops = setOp(0, kPresent);
  append(ops, setOp(65'535, kPresent));
  core->apply(ops);
  auto bytes = runSave(*core);
  const auto put = [&](size_t at, auto value) { std::memcpy(bytes.data() + at, &value, sizeof(value)); };
  // Behind the header, the frame's and the payload's, a dictionary of one; then codes, degrees, in-degrees.
  for (size_t column = 3; column > 0; column--) {
    bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(82 + column * 65'536), column == 1 ? 1 : 0);
  }
  put(8, uint32_t{65'537});
  put(16, uint32_t{3});
  put(32, uint64_t{bytes.size()});
  put(40, crc32c(bytes.data(), 40));
  put(48, static_cast<uint32_t>(bytes.size() - 56));
  put(60, uint32_t{65'537});
  put(52, crc32c(bytes.data() + 56, bytes.size() - 56, crc32c(bytes.data() + 44, 8)));
  EXPECT(!core->load(bytes));
}

// A thread marks, another saves and a third one reports while the owner changes the graph; the marks must include all that
// is reachable at the end, and image and report must be those of their beginning.
void opsBesideJobsAreSafe() {
  std::mt19937 random(7);
  for (int round = 0; round < 6; round++) {
    const auto core = std::make_shared<Core>();
    Model model;
    fill(*core, model, random, 30'000, 40'000);
    Words big;
    for (NodeId id = 0; id < 3000; id++) {
      if (!model.nodes.contains(id) || !model.nodes.contains(7)) continue;
      append(big, {kOpAdd, 7, id, kLabel});
      model.edges.insert({7, id, kLabel});
    }
    core->apply(big);
    const auto before = runSave(*core);
    const auto sums = runRetained(*core, question(30'000, 300));
    const auto save = core->save();
    const auto mark = core->mark(0, Barrier::kOn);
    const auto report = core->retained(question(30'000, 300));
    std::thread reporter([&] { report->work(); });
    std::thread saver([&] { save->work(); });
    std::thread marker([&] { mark->work(); });
    std::vector<std::tuple<NodeId, NodeId, uint32_t>> edges(model.edges.begin(), model.edges.end());
    for (int i = 0; i < 3000; i++) {
      Words ops;
      const auto& [from, to, kind] = edges[random() % edges.size()];
      if (model.edges.contains({from, to, kind})) {
        append(ops, {kOpRemove, from, to, kind});
        model.edges.erase(model.edges.find({from, to, kind}));
        const NodeId other = std::get<0>(edges[random() % edges.size()]);
        append(ops, {kOpAdd, other, to, kind});
        model.edges.insert({other, to, kind});
      }
      auto& node = model.nodes.at(to);
      if (i % 10 == 0) {
        node.flags |= kRoot;
        node.flags &= ~uint32_t{kExpires};
        append(ops, setOp(to, node.flags));
      }
      core->apply(ops);
    }
    saver.join();
    marker.join();
    reporter.join();
    mark->result();
    EXPECT(save->result() == before);
    EXPECT(report->result() == sums);
    EXPECT(!(runRetained(*core, question(30'000, 300)) == sums));
    for (const auto& [id, flat] : model.reachable(0)) EXPECT((core->marksOf(id) & (flat ? kFlat : kPlain)) != 0);
    for (const NodeId id : core->candidates()) EXPECT((core->marksOf(id) & kReached) == 0);
    core->endRun();
  }
}

// What the owner reads without the lock is what it wrote last, whatever marks a thread gives the same nodes meanwhile:
// pairs of a root and its child, of which it deletes and frees the latter.
void ownerDeletesWhileAThreadMarks() {
  constexpr NodeId kPairs = 100'000;
  constexpr uint32_t kChildFlags = kPresent | kCollectible | 3u << 8;
  const auto core = std::make_shared<Core>();
  Words ops;
  for (NodeId id = 0; id < 2 * kPairs; id += 2) {
    append(ops, setOp(id, kPresent | kRoot));
    append(ops, setOp(id + 1, kChildFlags));
    append(ops, {kOpAdd, id, id + 1, kLabel});
  }
  core->apply(ops);
  for (int round = 0; round < 3; round++) {
    const auto mark = core->mark(0, Barrier::kOn);
    std::thread marker([&] { mark->work(); });
    for (int i = 0; i < 300; i++) {
      const NodeId root = 2 * (static_cast<NodeId>(i) * (kPairs / 300) + static_cast<NodeId>(round));
      const NodeId child = root + 1;
      EXPECT(core->graph().flags(child) == kChildFlags);
      EXPECT(core->graph().isRoot(root, 0));
      core->apply(Words{kOpRemove, root, child, kLabel});
      core->apply(setOp(child, 0));
      EXPECT(core->graph().isFreeable(child));
      EXPECT(core->takeFreeable() == std::vector<NodeId>{child});
      core->apply(Words{kOpFree, child});
      EXPECT(core->graph().flags(child) == 0 && !core->graph().exists(child));
      if (i % 100 == 0) EXPECT(core->graph().withFlags(kRoot).size() == kPairs);
    }
    marker.join();
    mark->result();
    EXPECT(core->candidates().empty());
    core->endRun();
  }
}

void jobsCanBeCancelled() {
  std::mt19937 random(8);
  const auto core = std::make_shared<Core>();
  Model model;
  fill(*core, model, random, 50'000, 60'000);
  for (int round = 0; round < 20; round++) {
    const auto mark = core->mark(0, Barrier::kOn);
    const auto save = core->save();
    const auto report = core->retained(question(50'000, 50'000));
    std::thread marker([&] { mark->work(); });
    std::thread saver([&] { save->work(); });
    std::thread reporter([&] { report->work(); });
    if (round % 2 == 0) {
      core->endRun();
      report->builder()->cancelled = true;
    } else {
      core->clear();
    }
    marker.join();
    saver.join();
    reporter.join();
    try {
      report->result();
      EXPECT(!"a cancelled report gave a result");
    } catch (const GraphError& error) {
      EXPECT(std::string(error.kind()) == "Canceled");
    }
    try {
      mark->result();
      EXPECT(!"a cancelled marking gave a result");
    } catch (const GraphError& error) {
      EXPECT(std::string(error.kind()) == "Canceled");
    }
    if (core->graph().nodeCount() == 0) {
      Model again;
      fill(*core, again, random, 50'000, 60'000);
    }
  }
}

// A list that is being followed loses an edge, whereupon others move in it; none of those may be passed over. Their ids
// are such that they share a place in a map of 512, so that they do move.
void bigListsMayChangeWhileFollowed() {
  std::vector<NodeId> crowd;
  for (NodeId id = 1; crowd.size() < 60; id++) {
    if (((edgeWord(id, kLabel) * 0x9e3779b1u) >> 23) == 200) crowd.push_back(id);
  }
  std::set<NodeId> targets(crowd.begin(), crowd.end());
  for (NodeId id = 1; targets.size() < 340; id++) targets.insert(id);
  Words ops = setOp(0, kPresent | kRoot);
  for (const NodeId id : targets) append(ops, setOp(id, kPresent | kCollectible));
  for (const NodeId id : targets) append(ops, {kOpAdd, 0, id, kLabel});
  for (size_t steps = 190; steps < 290; steps++) {
    const auto core = std::make_shared<Core>();
    core->apply(ops);
    const auto job = core->mark(0, Barrier::kOn);
    for (size_t n = 0; n < steps; n++) EXPECT(!job->step(1));
    core->apply(Words{kOpRemove, 0, crowd.front(), kLabel});
    while (!job->step(1)) continue;
    const auto candidates = core->candidates();
    EXPECT(candidates.empty() || candidates == std::vector<NodeId>{crowd.front()});
  }
}

// A job that never runs must not leave its copy among the observers of the graph.
void droppedJobsAreForgotten() {
  std::mt19937 random(9);
  const auto core = std::make_shared<Core>();
  Model model;
  fill(*core, model, random, 500, 900);
  core->save();
  core->retained(question(500, 10));
  core->mark(0, Barrier::kOn);
  core->endRun();
  for (NodeId id = 0; id < 500; id++) core->apply(setOp(id, kPresent));
  EXPECT(runMark(*core, 0).marked == 0);
  core->endRun();
}

void longChainsNeedNoStack() {
  const auto core = std::make_shared<Core>();
  constexpr NodeId kLength = 1'000'000;
  Words ops;
  for (NodeId id = 0; id < kLength; id++) append(ops, setOp(id, kPresent | kCollectible | (id == 0 ? kRoot : 0u)));
  for (NodeId id = 0; id < kLength; id++) append(ops, {kOpAdd, id, (id + 1) % kLength, kStructural});
  core->apply(ops);
  EXPECT(runMark(*core, 0).marked == kLength);
  core->endRun();
  const auto sums = runRetained(*core, question(kLength, 2));
  const double all = kLength * (kLength - 1.0) / 2;
  const double half = kLength / 2 * (kLength / 2 - 1.0) / 2;
  EXPECT(sums.kept == all && sums.total == (std::vector<double>{all, all}));
  EXPECT(sums.retained == (std::vector<double>{all, all - half}));
  core->apply(setOp(0, kPresent | kCollectible));
  EXPECT(runMark(*core, 0).marked == 0);
  const auto order = core->candidates();
  EXPECT(order.size() == kLength && std::is_sorted(order.begin(), order.end()));
  core->endRun();
  core->apply(Words{kOpRemove, kLength - 1, 0, kStructural});
  runMark(*core, 0);
  EXPECT(core->candidates() == order);
  core->endRun();
}

}  // namespace

int main() {
  crcKnowsItsCheckValue();
  flatMapKeepsWhatItIsTold();
  edgesOfEverySizeComeAndGo();
  marksAreTheClosure();
  invalidBatchesChangeNothing();
  checkpointsComeBack();
  damagedCheckpointsAreRefused();
  framesHoldNoMoreThanTheirIds();
  opsBesideJobsAreSafe();
  ownerDeletesWhileAThreadMarks();
  jobsCanBeCancelled();
  bigListsMayChangeWhileFollowed();
  droppedJobsAreForgotten();
  longChainsNeedNoStack();
  std::printf("core_test: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
