// Reads checkpoints. See checkpoint.h for the layout, the contract and the threading rule.
#include <algorithm>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_format.h"
#include "base/crc32c.h"

namespace ebbtide {

using namespace format;

namespace {

// Columns of a frame, as views of its bytes.
struct Frame {
  NodeId first;
  uint32_t ids;
  uint32_t edges;
  uint32_t dictionarySize;
  uint32_t wideDegrees;
  uint32_t wideInDegrees;
  uint32_t expiries;
  const uint8_t* dictionary;
  const uint8_t* codes;
  const uint8_t* degrees;
  const uint8_t* inDegrees;
  const uint8_t* wideDegree;
  const uint8_t* wideInDegree;
  const uint8_t* expiry;
  const uint8_t* controls;
  const uint8_t* data;
  const uint8_t* end;

  bool wide() const { return dictionarySize == kNoDictionary; }
};

// Splits a payload into its columns; returns false when they do not fit.
bool split(std::span<const uint8_t> payload, Frame& frame) {
  if (payload.size() < kPartBytes) return false;
  const uint8_t* at = payload.data();
  frame.dictionarySize = load<uint16_t>(at);
  frame.ids = load<uint32_t>(at + 4);
  frame.edges = load<uint32_t>(at + 8);
  frame.wideDegrees = load<uint32_t>(at + 12);
  frame.wideInDegrees = load<uint32_t>(at + 16);
  frame.expiries = load<uint32_t>(at + 20);
  if (load<uint16_t>(at + 2) != 0 || frame.ids == 0 || frame.ids > kFrameIds) return false;
  if (!frame.wide() && (frame.dictionarySize == 0 || frame.dictionarySize > kMaxDictionary)) return false;
  if (frame.first >= kMaxNodes || frame.ids > kMaxNodes - frame.first) return false;

  at += kPartBytes;
  uint64_t left = payload.size() - kPartBytes;
  const auto take = [&](const uint8_t*& column, uint64_t length) {
    if (length > left) return false;
    column = at;
    at += length;
    left -= length;
    return true;
  };
  if (!take(frame.dictionary, frame.wide() ? 0 : uint64_t{2} * frame.dictionarySize)) return false;
  if (!take(frame.codes, frame.wide() ? uint64_t{3} * frame.ids : frame.ids)) return false;
  if (!take(frame.degrees, frame.ids) || !take(frame.inDegrees, frame.ids)) return false;
  if (!take(frame.wideDegree, uint64_t{4} * frame.wideDegrees)) return false;
  if (!take(frame.wideInDegree, uint64_t{4} * frame.wideInDegrees)) return false;
  if (!take(frame.expiry, uint64_t{8} * frame.expiries)) return false;
  if (!take(frame.controls, (uint64_t{frame.edges} + 3) / 4)) return false;
  return take(frame.data, left) && (frame.end = at, true);
}

// A column of bytes in which 255 stands for the next number of a second column.
class Widened {
 public:
  Widened(const uint8_t* narrow, const uint8_t* wide, uint32_t count) : narrow_(narrow), wide_(wide), left_(count) {}
  // REQUIRES: ascending calls. Returns false when the second column is too short.
  bool at(uint32_t i, uint32_t& value) {
    value = narrow_[i];
    if (value < 255) return true;
    if (left_ == 0) return false;
    value = load<uint32_t>(wide_);
    wide_ += 4;
    left_--;
    return value >= 255;
  }
  bool used() const { return left_ == 0; }

 private:
  const uint8_t* narrow_;
  const uint8_t* wide_;
  uint32_t left_;
};

// Sets the frame's nodes. Adds their in-degrees to `inDegreeSum`.
bool decodeNodes(const Frame& frame, Graph& graph, uint64_t& inDegreeSum) {
  static_assert(kBlockIds % kFrameIds == 0, "a frame's nodes are in one block");
  Widened inDegrees(frame.inDegrees, frame.wideInDegree, frame.wideInDegrees);
  uint32_t expiries = 0;
  Graph::NodeLoader plain(graph, frame.first);
  for (uint32_t i = 0; i < frame.ids; i++) {
    uint32_t flags = 0;
    const uint32_t code = frame.codes[frame.wide() ? 3 * i : i];
    if (code == 0) {
      if (frame.degrees[i] != 0 || frame.inDegrees[i] != 0) return false;
      continue;
    }
    if (code > (frame.wide() ? 1 : frame.dictionarySize)) return false;
    flags = load<uint16_t>(frame.wide() ? frame.codes + 3 * i + 1 : frame.dictionary + 2 * (code - 1));
    uint32_t inDegree = 0;
    if (flags > kMaxFlags || !inDegrees.at(i, inDegree)) return false;
    inDegreeSum += inDegree;
    if (Graph::NodeLoader::takes(flags, inDegree)) {
      plain.add(frame.first + i, flags, inDegree);
      continue;
    }
    int64_t expiry = 0;
    if ((flags & kExpires) != 0) {
      if (expiries == frame.expiries) return false;
      expiry = load<int64_t>(frame.expiry + 8 * size_t{expiries++});
    }
    graph.loadNode(frame.first + i, flags, inDegree, expiry);
  }
  return expiries == frame.expiries && inDegrees.used() && graph.exists(frame.first + frame.ids - 1);
}

// Reads the edges of a frame in order.
class EdgeReader {
 public:
  explicit EdgeReader(const Frame& frame) : frame_(frame), data_(frame.data) {}
  uint32_t left() const { return frame_.edges - edge_; }
  bool atEnd() const { return left() == 0 && data_ == frame_.end; }
  // Whether there was a flat edge since the last call: no other kind has that bit.
  bool tookFlat() {
    static_assert(kFlatEdge == 2 && kEdgeKinds == 3);
    return (std::exchange(kinds_, 0) & kFlatEdge) != 0;
  }
  // Reads `degree` edges of `from`. REQUIRES: no more than are left. Returns false when the data is too short, or
  // an edge is not possible.
  bool read(NodeTable nodes, NodeId from, uint32_t* words, uint32_t degree) {
    constexpr std::array<uint32_t, 4> kMasks = {0xff, 0xffff, 0xffffff, 0xffffffff};
    for (uint32_t n = 0; n < degree; n++, edge_++) {
      const uint32_t code = frame_.controls[edge_ / 4] >> 2 * (edge_ % 4) & 3;
      const auto room = static_cast<size_t>(frame_.end - data_);
      if (room < code + 1) return false;
      uint32_t packed = 0;
      if (room >= 4) packed = load<uint32_t>(data_) & kMasks[code];
      else std::memcpy(&packed, data_, code + 1);
      data_ += code + 1;
      words[n] = unpackEdge(from, packed);
      kinds_ |= packed;
      if (edgeKind(words[n]) >= kEdgeKinds || !nodes.exists(edgeTarget(words[n]))) return false;
    }
    return true;
  }

 private:
  const Frame& frame_;
  const uint8_t* data_;
  uint32_t edge_ = 0;
  uint32_t kinds_ = 0;
};

// Adds the nodes with flat edges to `flatSources`.
bool decodeEdges(const Frame& frame, Graph& graph, std::vector<NodeId>& flatSources) {
  Widened degrees(frame.degrees, frame.wideDegree, frame.wideDegrees);
  EdgeReader edges(frame);
  const NodeTable nodes = graph.table();
  std::vector<uint32_t> words;
  for (uint32_t i = 0; i < frame.ids; i++) {
    uint32_t degree = 0;
    if (!degrees.at(i, degree)) return false;
    if (degree == 0) continue;
    if (degree > edges.left()) return false;
    const NodeId id = frame.first + i;
    if (degree < kBigDegree) {
      if (!edges.read(nodes, id, graph.loadEdges(id, degree), degree)) return false;
    } else {
      words.resize(degree);
      if (!edges.read(nodes, id, words.data(), degree)) return false;
      graph.loadBig(id, words);
    }
    if (edges.tookFlat()) flatSources.push_back(id);
  }
  return edges.atEnd() && degrees.used();
}

bool splitAll(std::span<const uint8_t> bytes, uint32_t count, std::vector<Frame>& frames) {
  int64_t last = -1;
  for (uint32_t n = 0; n < count; n++) {
    if (bytes.size() < kFrameBytes) return false;
    const auto number = load<uint32_t>(bytes.data());
    const auto length = load<uint32_t>(bytes.data() + 4);
    const auto checksum = load<uint32_t>(bytes.data() + 8);
    if (number <= last || number > kMaxNodes / kFrameIds || length > bytes.size() - kFrameBytes) return false;
    if (crc32c(bytes.data() + kFrameBytes, length, crc32c(bytes.data(), 8)) != checksum) return false;
    Frame frame{};
    frame.first = number * kFrameIds;
    if (!split(bytes.subspan(kFrameBytes, length), frame)) return false;
    frames.push_back(frame);
    last = number;
    bytes = bytes.subspan(kFrameBytes + length);
  }
  return bytes.empty();
}

// Null when the section is damaged or is not of this graph, or memory runs out: then the marks are found anew.
std::shared_ptr<LiveMarks> marksOf(std::span<const uint8_t> section, uint32_t headerChecksum, Graph& graph,
                                   std::span<const NodeId> flatSources) try {
  const auto saved = decodeMarks(section, headerChecksum);
  return saved.has_value() ? LiveMarks::adopt(graph, *saved, flatSources) : nullptr;
} catch (const std::bad_alloc&) {
  return nullptr;
}

}  // namespace

bool decodeCheckpoint(std::span<const uint8_t> bytes, Graph& graph, std::shared_ptr<LiveMarks>& live) {
  if (bytes.size() < kHeaderBytes) return false;
  const uint8_t* header = bytes.data();
  const auto version = load<uint32_t>(header + 4);
  if (load<uint32_t>(header) != kMagic || (version != kVersion && version != kVersionWithoutMarks)) return false;
  const auto marks = load<uint32_t>(header + 20);
  const auto checksum = load<uint32_t>(header + 40);
  if (load<uint64_t>(header + 32) != bytes.size() || checksum != crc32c(header, 40)) return false;
  if (marks > bytes.size() - kHeaderBytes || (version == kVersionWithoutMarks && marks != 0)) return false;
  const auto edges = load<uint64_t>(header + 24);
  if (edges > kMaxEdges) return false;

  std::vector<Frame> frames;
  const auto framed = bytes.subspan(kHeaderBytes, bytes.size() - kHeaderBytes - marks);
  if (!splitAll(framed, load<uint32_t>(header + 12), frames)) return false;
  // An edge may lead to any frame, so all nodes come before the first edge.
  uint64_t inDegreeSum = 0;
  for (const Frame& frame : frames) {
    if (!decodeNodes(frame, graph, inDegreeSum)) return false;
  }
  std::vector<NodeId> flatSources;
  for (const Frame& frame : frames) {
    if (!decodeEdges(frame, graph, flatSources)) return false;
  }
  if (inDegreeSum != edges || graph.limit() != load<uint32_t>(header + 8) ||
      graph.nodeCount() != load<uint32_t>(header + 16) || graph.edgeCount() != edges) {
    return false;
  }
  if (marks != 0) live = marksOf(bytes.last(marks), checksum, graph, flatSources);
  return true;
}

}  // namespace ebbtide
