// Fuzz target: bytes as a checkpoint, as they are and with checksums made right, so that damage gets past them. Whatever
// is accepted must be a graph that marks, answers queries, changes and is restored from its own checkpoint.
#include <algorithm>
#include <cstring>

#include "checkpoint/checkpoint_format.h"
#include "base/crc32c.h"
#include "graph/path.h"
#include "target.h"

namespace ebbtide::fuzz {

namespace {

using format::kFrameBytes;
using format::kHeaderBytes;

constexpr NodeId kFarFrame = 40 * format::kFrameIds;

template <typename T>
void put(Bytes& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

// The same with the lengths and checksums that these bytes would have.
Bytes repaired(Bytes bytes) {
  if (bytes.size() < kHeaderBytes) bytes.resize(kHeaderBytes);
  put(bytes, 0, format::kMagic);
  put(bytes, 4, format::kVersion);
  const size_t marks = std::min<size_t>(format::load<uint32_t>(bytes.data() + 20), bytes.size() - kHeaderBytes);
  const Bytes section(bytes.end() - static_cast<std::ptrdiff_t>(marks), bytes.end());
  bytes.resize(bytes.size() - marks);
  uint32_t frames = 0;
  size_t at = kHeaderBytes;
  while (bytes.size() - at >= kFrameBytes) {
    const size_t room = bytes.size() - at - kFrameBytes;
    const auto length = std::min<size_t>(format::load<uint32_t>(bytes.data() + at + 4), room);
    put(bytes, at + 4, static_cast<uint32_t>(length));
    put(bytes, at + 8, crc32c(bytes.data() + at + kFrameBytes, length, crc32c(bytes.data() + at, 8)));
    at += kFrameBytes + length;
    frames++;
  }
  bytes.resize(at);
  bytes.insert(bytes.end(), section.begin(), section.end());
  put(bytes, 12, frames);
  put(bytes, 20, static_cast<uint32_t>(marks));
  put(bytes, 32, uint64_t{bytes.size()});
  const uint32_t checksum = crc32c(bytes.data(), 40);
  put(bytes, 40, checksum);
  constexpr size_t kSectionHead = 20;
  if (marks >= kSectionHead) sealMarks(std::span(bytes).last(marks), checksum);
  return bytes;
}

void mustBeEmpty(const Graph& graph) {
  MUST(graph.nodeCount() == 0 && graph.edgeCount() == 0 && graph.limit() == 0);
}

std::vector<NodeId> existing(const Graph& graph) {
  std::vector<NodeId> ids;
  graph.forEach(0, graph.limit(), [&](NodeId id) { ids.push_back(id); });
  MUST(ids.size() == graph.nodeCount());
  return ids;
}

// Marks include the roots and are closed under the edges, and no candidate is marked.
void mustMark(Core& core, const std::vector<NodeId>& ids) {
  const auto job = core.mark(0, Barrier::kOn);
  job->work();
  MUST(job->result().marked <= ids.size());
  const Graph& graph = core.graph();
  for (const NodeId id : ids) {
    const uint32_t marks = core.marksOf(id);
    if (graph.isRoot(id, 0)) MUST((marks & kPlain) != 0);
    graph.edges().forEach(*graph.find(id), [&](uint32_t word, uint32_t) {
      const uint32_t kind = edgeKind(word);
      const uint32_t to = core.marksOf(edgeTarget(word));
      if ((marks & kPlain) != 0) MUST((to & (kind == kFlatEdge ? kFlat : kPlain)) != 0);
      if ((marks & kFlat) != 0 && kind == kStructural) MUST((to & kFlat) != 0);
    });
  }
  for (const NodeId id : core.candidates()) MUST((core.marksOf(id) & kReached) == 0);
  core.endRun();
}

// As far as in-degrees are right, what is reached has a mark that lives on: saved_marks_test.cc. Here, where they may be
// forged, it must work.
void mustLive(Core& core) {
  const auto job = core.markLive(0, LiveFault::kNone);
  job->work();
  try {
    job->result();
    for (const NodeId id : core.candidates()) MUST((core.marksOf(id) & kReached) == 0);
    core.endRun();
  } catch (const GraphError&) {
    // A count was not what the ops said.
  }
}

void mustAnswer(Core& core, const std::vector<NodeId>& ids) {
  RetainedQuery query;
  query.sizes = std::vector<double>{1};
  query.itemOf = Words(std::min<size_t>(core.graph().limit(), 1000), 0);
  query.members = ids;
  query.ends = Words{0, static_cast<uint32_t>(ids.size())};
  const auto job = core.retained(std::move(query));
  job->work();
  const RetainedSums sums = job->result();
  MUST(sums.total[0] == 0 && sums.retained[0] == 0);
  MUST(sums.kept == sums.retained[1] && sums.retained[1] <= sums.total[1]);
  if (!ids.empty()) shortestPath(core.graph(), ids.back(), 0);
  core.graph().unused(0, 100);
  core.graph().withFlags(kConditional);
  core.graph().rows(0, 1000);
  core.takeFreeable();
}

// In-degrees may be wrong where the checksum was forged; changes must be safe all the same.
void mustChange(Core& core, const std::vector<NodeId>& ids) {
  for (size_t i = 0; i < ids.size(); i++) {
    if (i >= 32 && i + 32 < ids.size()) continue;
    Words words;
    Words ops;
    core.graph().edges().sorted(*core.graph().find(ids[i]), words);
    for (size_t n = 0; n < words.size() && n < 300; n++) {
      append(ops, {kOpRemove, ids[i], edgeTarget(words[n]), edgeKind(words[n])});
    }
    appendSet(ops, ids[i], 0);
    append(ops, {kOpFree, ids[i]});
    try {
      core.apply(ops);
    } catch (const GraphError&) {
      // It is still referred to.
    }
  }
  const auto job = core.mark(0, Barrier::kOn);
  job->work();
  core.candidates();
  core.endRun();
  savedNow(core);
}

void take(const Bytes& bytes) {
  const auto core = std::make_shared<Core>();
  if (!core->load(bytes)) {
    mustBeEmpty(core->graph());
    return;
  }
  const auto ids = existing(core->graph());
  const Bytes image = savedNow(*core);
  const auto other = std::make_shared<Core>();
  MUST(other->load(image));
  MUST(savedNow(*other) == image);
  mustLive(*core);
  mustMark(*core, ids);
  mustAnswer(*core, ids);
  mustChange(*core, ids);
}

// `ids` nodes, every other one in a frame far away, each with some edges to others of them.
Bytes sample(NodeId ids, uint32_t edges, uint32_t flagsStep, bool marksLive = false) {
  const auto core = std::make_shared<Core>();
  const auto id = [](uint32_t i) { return i % 2 == 0 ? i / 2 : kFarFrame + i / 2; };
  Words ops;
  for (NodeId i = 0; i < ids; i++) {
    if (i % 5 != 3) appendSet(ops, id(i), (i * flagsStep) & kMaxFlags, int64_t{i} - 4);
  }
  for (uint32_t n = 0; n < edges; n++) {
    const NodeId from = n * 7 % ids;
    const NodeId to = n * 11 % ids;
    if (from % 5 != 3 && to % 5 != 3) append(ops, {kOpAdd, id(from), id(to), n % kEdgeKinds});
  }
  core->apply(ops);
  if (marksLive) mustLive(*core);
  return savedNow(*core);
}

// A big list, wide degrees both ways.
Bytes bigSample() {
  const auto core = std::make_shared<Core>();
  Words ops;
  appendSet(ops, kFarFrame, kPresent | kRoot);
  for (NodeId id = 0; id < 300; id++) {
    appendSet(ops, id, kPresent | kCollectible);
    append(ops, {kOpAdd, kFarFrame, id, kLabel});
    append(ops, {kOpAdd, id, kFarFrame, kFlatEdge});
  }
  core->apply(ops);
  return savedNow(*core);
}

}  // namespace

std::vector<Bytes> seeds() {
  return {{},
          sample(1, 0, 1),
          sample(8, 12, 3),
          sample(8, 12, 3, true),
          sample(40, 70, 5, true),
          sample(30, 90, 5),
          sample(40, 300, 29),
          sample(700, 0, 27),  // more flags than a dictionary takes
          bigSample()};
}

}  // namespace ebbtide::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ebbtide::fuzz::Bytes bytes(data, data + size);
  ebbtide::fuzz::take(bytes);
  ebbtide::fuzz::take(ebbtide::fuzz::repaired(bytes));
  return 0;
}
