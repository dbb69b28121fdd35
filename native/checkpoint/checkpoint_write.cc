// Writes checkpoints. See checkpoint.h for the layout, the contract and the threading rule.
#include <algorithm>
#include <bit>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_format.h"
#include "base/crc32c.h"

namespace ebbtide {

using namespace format;

namespace {

// Number of ids copied in one step: some ten microseconds.
constexpr uint32_t kGatherIds = 2048;

template <typename T>
void append(std::vector<uint8_t>& out, const std::vector<T>& column, size_t count) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(column.data());
  out.insert(out.end(), bytes, bytes + count * sizeof(T));
}

template <typename T>
void put(std::vector<uint8_t>& out, T value) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof(T));
}

template <typename T>
void patch(std::vector<uint8_t>& out, size_t at, T value) {
  std::memcpy(out.data() + at, &value, sizeof(T));
}

uint8_t narrow(uint64_t n, std::vector<uint32_t>& wide) {
  if (n < 255) return static_cast<uint8_t>(n);
  wide.push_back(static_cast<uint32_t>(n));
  return 255;
}

}  // namespace

CheckpointWriter::CheckpointWriter(Graph& graph, std::shared_ptr<LiveMarks> live)
    : GraphCopy(graph), limit_(graph.limit()), nodes_(graph.nodeCount()), edges_(graph.edgeCount()) {
  if (live != nullptr) marks_.emplace(std::move(live), limit_);
  out_.resize(kHeaderBytes);
  // No longer than necessary: small graphs are saved often.
  const size_t ids = std::min(limit_, kFrameIds);
  flags_.resize(ids);
  exists_.resize(ids);
  degrees_.resize(ids);
  inDegrees_.resize(ids);
}

void CheckpointWriter::attach() {
  GraphCopy::attach();
  if (marks_.has_value()) marks_->attach();
}

void CheckpointWriter::detach() {
  GraphCopy::detach();
  if (marks_.has_value()) marks_->detach();
}

void CheckpointWriter::beforeChange(NodeId id) {
  if (id < next_ || id >= limit_ || beforeImages_.contains(id)) return;
  BeforeImage node;
  node.existed = graph_.exists(id);
  if (node.existed) {
    node.flags = static_cast<uint16_t>(graph_.flags(id));
    node.inDegree = graph_.inDegree(id);
    node.expiry = graph_.expiry(id).value_or(0);
    graph_.edges().sorted(*graph_.find(id), node.words);
  }
  beforeImages_.emplace(id, std::move(node));
}

// -------------------------------------------------------------------------------------------------------- gathering

bool CheckpointWriter::gather() {
  const NodeId frameEnd = (next_ | (kFrameIds - 1)) + 1;
  const NodeId end = std::min({limit_, frameEnd, next_ + kGatherIds});
  if (beforeImages_.empty()) {
    graph_.forEach(next_, end, [this](NodeId id) { gatherNode(id); });
  } else {
    for (NodeId id = next_; id < end; id++) {
      const auto found = beforeImages_.find(id);
      if (found == beforeImages_.end()) {
        if (graph_.exists(id)) gatherNode(id);
        continue;
      }
      if (found->second.existed) gatherBeforeImage(id, found->second);
      beforeImages_.erase(found);
    }
  }
  next_ = end;
  return end == frameEnd || end == limit_;
}

void CheckpointWriter::gatherNode(NodeId id) {
  const Node& node = *graph_.find(id);
  const EdgeStore& edges = graph_.edges();
  const int64_t expiry = (node.bits() & kExpires) != 0 ? graph_.expiry(id).value_or(0) : 0;
  const uint32_t inDegree = node.inDegree < 255 ? node.inDegree : graph_.inDegree(id);
  putNode(id, node.flags(), edges.degree(node), inDegree, expiry);
  if (node.degree == 1) {
    gatherEdges(id, {&node.slot, 1});
  } else if (node.degree > 1) {
    edges.sorted(node, scratch_);
    gatherEdges(id, scratch_);
  }
}

void CheckpointWriter::gatherBeforeImage(NodeId id, const BeforeImage& node) {
  putNode(id, node.flags, node.words.size(), node.inDegree, node.expiry);
  gatherEdges(id, node.words);
}

void CheckpointWriter::putNode(NodeId id, uint32_t flags, uint64_t degree, uint32_t inDegree, int64_t expiry) {
  const uint32_t i = id % kFrameIds;
  flags_[i] = static_cast<uint16_t>(flags);
  exists_[i] = 1;
  degrees_[i] = narrow(degree, wideDegrees_);
  inDegrees_[i] = narrow(inDegree, wideInDegrees_);
  if ((flags & kExpires) != 0) expiries_.push_back(expiry);
  if (marks_.has_value()) marks_->gather(id);
  ids_ = i + 1;
}

void CheckpointWriter::gatherEdges(NodeId id, std::span<const uint32_t> words) {
  const size_t start = data_.size();
  data_.resize(start + 4 * words.size());
  controls_.resize((edgeCount_ + words.size() + 3) / 4);
  uint8_t* at = data_.data() + start;
  for (const uint32_t word : words) {
    const uint32_t packed = packEdge(id, word);
    const auto length = static_cast<uint32_t>(std::bit_width(packed | 1) + 7) / 8;
    std::memcpy(at, &packed, 4);
    at += length;
    controls_[edgeCount_ / 4] = static_cast<uint8_t>(controls_[edgeCount_ / 4] | (length - 1) << 2 * (edgeCount_ % 4));
    edgeCount_++;
  }
  data_.resize(static_cast<size_t>(at - data_.data()));
}

// ----------------------------------------------------------------------------------------------------------- frames

void CheckpointWriter::closeFrame() {
  if (ids_ == 0) return;
  std::vector<uint16_t> dictionary;
  std::vector<uint8_t> codes(ids_);
  std::vector<uint16_t> codeOf(kMaxFlags + 1);
  for (uint32_t i = 0; i < ids_; i++) {
    if (exists_[i] != 0) codeOf[flags_[i]] = 1;
  }
  for (uint32_t flags = 0; flags <= kMaxFlags; flags++) {
    if (codeOf[flags] == 0) continue;
    dictionary.push_back(static_cast<uint16_t>(flags));
    codeOf[flags] = static_cast<uint16_t>(dictionary.size());
  }
  const bool wide = dictionary.size() > kMaxDictionary;
  if (wide) {
    dictionary.clear();
    codes.resize(size_t{3} * ids_);
  }
  for (uint32_t i = 0; i < ids_; i++) {
    if (!wide) {
      codes[i] = exists_[i] == 0 ? 0 : static_cast<uint8_t>(codeOf[flags_[i]]);
    } else {
      codes[3 * i] = exists_[i];
      std::memcpy(codes.data() + 3 * i + 1, &flags_[i], 2);
    }
  }

  const size_t start = out_.size();
  put(out_, (next_ - 1) / kFrameIds);
  put(out_, uint32_t{0});
  put(out_, uint32_t{0});
  put(out_, static_cast<uint16_t>(wide ? kNoDictionary : dictionary.size()));
  put(out_, uint16_t{0});
  put(out_, ids_);
  put(out_, edgeCount_);
  put(out_, static_cast<uint32_t>(wideDegrees_.size()));
  put(out_, static_cast<uint32_t>(wideInDegrees_.size()));
  put(out_, static_cast<uint32_t>(expiries_.size()));
  append(out_, dictionary, dictionary.size());
  append(out_, codes, codes.size());
  append(out_, degrees_, ids_);
  append(out_, inDegrees_, ids_);
  append(out_, wideDegrees_, wideDegrees_.size());
  append(out_, wideInDegrees_, wideInDegrees_.size());
  append(out_, expiries_, expiries_.size());
  append(out_, controls_, controls_.size());
  append(out_, data_, data_.size());

  const size_t payload = start + kFrameBytes;
  patch(out_, start + 4, static_cast<uint32_t>(out_.size() - payload));
  const uint32_t head = crc32c(out_.data() + start, 8);
  patch(out_, start + 8, crc32c(out_.data() + payload, out_.size() - payload, head));
  frames_++;
  clearFrame();
}

void CheckpointWriter::clearFrame() {
  std::fill_n(flags_.begin(), ids_, uint16_t{0});
  std::fill_n(exists_.begin(), ids_, uint8_t{0});
  std::fill_n(degrees_.begin(), ids_, uint8_t{0});
  std::fill_n(inDegrees_.begin(), ids_, uint8_t{0});
  wideDegrees_.clear();
  wideInDegrees_.clear();
  expiries_.clear();
  controls_.clear();
  data_.clear();
  ids_ = 0;
  edgeCount_ = 0;
}

std::vector<uint8_t> CheckpointWriter::finish() {
  const std::vector<uint8_t> marks = marks_.has_value() ? marks_->finish() : std::vector<uint8_t>();
  append(out_, marks, marks.size());
  patch(out_, 0, kMagic);
  patch(out_, 4, kVersion);
  patch(out_, 8, limit_);
  patch(out_, 12, frames_);
  patch(out_, 16, nodes_);
  patch(out_, 20, static_cast<uint32_t>(marks.size()));
  patch(out_, 24, edges_);
  patch(out_, 32, uint64_t{out_.size()});
  const uint32_t checksum = crc32c(out_.data(), 40);
  patch(out_, 40, checksum);
  if (!marks.empty()) sealMarks(std::span(out_).last(marks.size()), checksum);
  return std::move(out_);
}

}  // namespace ebbtide
