// See graph_snapshot.h for the contract and the threading rule.
#include "graph/graph_snapshot.h"

#include <algorithm>

namespace ebbtide {

namespace {

// How much is copied in one step: some ten microseconds.
constexpr NodeId kGatherIds = 4096;
constexpr size_t kGatherWords = 8192;

// The extra edges whose nodes exist, as numbers, by source.
std::vector<std::pair<uint32_t, uint32_t>> numbered(const IdRanks& numbers, std::span<const NodeId> edges) {
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  for (size_t i = 0; i + 1 < edges.size(); i += 2) {
    const uint32_t from = numbers.rankOf(edges[i]);
    const uint32_t to = numbers.rankOf(edges[i + 1]);
    if (from != IdRanks::kNone && to != IdRanks::kNone) pairs.emplace_back(from, to);
  }
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

Adjacency reversed(const Adjacency& out, uint32_t nodes, Cancellation& cancellation) {
  Adjacency in;
  in.first.assign(size_t{nodes} + 1, 0);
  in.words.resize(out.words.size());
  for (const uint32_t word : out.words) {
    in.first[edgeTarget(word) + 1]++;
    cancellation.poll();
  }
  for (uint32_t node = 0; node < nodes; node++) in.first[node + 1] += in.first[node];
  std::vector<uint32_t> filled(in.first.begin(), in.first.end() - 1);
  for (uint32_t from = 0; from < nodes; from++) {
    for (const uint32_t word : out.of(from)) in.words[filled[edgeTarget(word)]++] = edgeWord(from, edgeKind(word));
    cancellation.poll();
  }
  return in;
}

}  // namespace

SnapshotBuilder::SnapshotBuilder(Graph& graph, int64_t now) : GraphCopy(graph), now_(now), limit_(graph.limit()) {
  // Address space only; the pages come when they are written, on the thread that gathers.
  ids_.reserve(graph.nodeCount());
  isRoot_.reserve(graph.nodeCount());
  ends_.reserve(graph.nodeCount());
  words_.reserve(graph.edgeCount());
}

void SnapshotBuilder::beforeChange(NodeId id) {
  if (id < next_ || id >= limit_ || beforeImages_.contains(id)) return;
  BeforeImage node;
  node.existed = graph_.exists(id);
  if (node.existed) {
    node.isRoot = graph_.isRoot(id, now_);
    graph_.edges().forEach(*graph_.find(id), [&](uint32_t word, uint32_t) { node.words.push_back(word); });
  }
  beforeImages_.emplace(id, std::move(node));
}

bool SnapshotBuilder::gather() {
  const NodeId end = std::min(limit_, next_ + kGatherIds);
  const size_t full = words_.size() + kGatherWords;
  // Blocks of ids are never given back, so where there is none now there was none when the snapshot was begun.
  if (next_ < limit_ && graph_.blockAt(next_ >> kBlockBits) == nullptr) {
    next_ = std::min(limit_, (next_ | kBlockMask) + 1);
    return next_ >= limit_;
  }
  for (; next_ < end && words_.size() < full; next_++) gatherNode(next_);
  return next_ >= limit_;
}

void SnapshotBuilder::gatherNode(NodeId id) {
  if (!beforeImages_.empty()) {
    const auto found = beforeImages_.find(id);
    if (found != beforeImages_.end()) {
      const BeforeImage& node = found->second;
      words_.insert(words_.end(), node.words.begin(), node.words.end());
      if (node.existed) put(id, node.isRoot);
      beforeImages_.erase(found);
      return;
    }
  }
  if (!graph_.exists(id)) return;
  graph_.edges().forEach(*graph_.find(id), [this](uint32_t word, uint32_t) { words_.push_back(word); });
  put(id, graph_.isRoot(id, now_));
}

void SnapshotBuilder::put(NodeId id, bool isRoot) {
  ids_.push_back(id);
  isRoot_.push_back(isRoot ? 1 : 0);
  ends_.push_back(static_cast<uint32_t>(words_.size()));
}

GraphSnapshot SnapshotBuilder::build(std::span<const NodeId> roots, std::span<const NodeId> edges, Cancellation& cancellation) {
  GraphSnapshot snapshot;
  snapshot.ids = std::move(ids_);
  snapshot.isRoot = std::move(isRoot_);
  for (const NodeId id : snapshot.ids) snapshot.numbers.add(id);
  snapshot.numbers.close();
  for (const NodeId id : roots) {
    const uint32_t number = snapshot.numbers.rankOf(id);
    if (number != IdRanks::kNone) snapshot.isRoot[number] = 1;
  }
  snapshot.out = outgoing(snapshot.numbers, numbered(snapshot.numbers, edges), cancellation);
  words_ = {};
  ends_ = {};
  snapshot.in = reversed(snapshot.out, snapshot.size(), cancellation);
  return snapshot;
}

Adjacency SnapshotBuilder::outgoing(const IdRanks& numbers, const Pairs& extra, Cancellation& cancellation) const {
  Adjacency out;
  out.first.reserve(ends_.size() + 1);
  out.words.reserve(words_.size() + extra.size());
  out.first.push_back(0);
  size_t at = 0;
  size_t next = 0;
  for (uint32_t number = 0; number < ends_.size(); number++) {
    for (; at < ends_[number]; at++) {
      const uint32_t to = numbers.rankOf(edgeTarget(words_[at]));
      if (to != IdRanks::kNone) out.words.push_back(edgeWord(to, edgeKind(words_[at])));
      cancellation.poll();
    }
    for (; next < extra.size() && extra[next].first == number; next++) {
      out.words.push_back(edgeWord(extra[next].second, kLabel));
    }
    out.first.push_back(static_cast<uint32_t>(out.words.size()));
  }
  return out;
}

}  // namespace ebbtide
