// Unit tests of the C++ core without Node, meant to run under sanitizers: npm run test:sanitize.
// A naive model of nodes and edges says what every call must return. Threads: jobs_test.cc.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "checkpoint/checkpoint.h"
#include "core_model.h"
#include "base/crc32c.h"
#include "graph/path.h"

using namespace ebbtide;

namespace {

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
  longChainsNeedNoStack();
  std::printf("core_test: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
