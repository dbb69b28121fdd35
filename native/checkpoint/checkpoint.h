// The packed, checksummed image of a whole graph; about six bytes a node. All numbers are little-endian. Equal
// graphs give equal bytes.
//
//   header  44 bytes   magic "EBBG", u32 version 2, u32 limit, u32 frames, u32 nodes, u32 bytes of the marks, u64 edges,
//                      u64 bytes in all, u32 CRC-32C of what precedes it. Version 1 is the same without marks
//   frame   for each 65,536 ids of which one exists, ascending:
//     u32 number (first id / 65,536), u32 payload bytes, u32 CRC-32C of these two numbers and the payload
//     payload:
//       u16 dictionary size (0xffff: no dictionary), u16 zero, u32 ids (up to the frame's last node), u32 edges,
//       u32 wide degrees, u32 wide in-degrees, u32 expiries
//       u16 flags …            the dictionary, ascending
//       u8 code …              for each id: 0 = no node, else index in the dictionary + 1
//                              (without dictionary three bytes: exists, flags)
//       u8 degree …            255: the next of the wide ones
//       u8 in-degree …         255: the next of the wide ones
//       u32 wide degree …, u32 wide in-degree …, i64 expiry … (of the nodes that have one, in order)
//       2 bits an edge         its bytes - 1, from the low bits up
//       1 to 4 bytes an edge   (zigzag of target - id, wrapped to 30 bits) << 2 | kind; ascending by target, kind
//   marks   of nodes, as far as they live on: checkpoint_marks.h
//
// Contract: decoding trusts nothing that memory safety or the shape of the graph depends on: counts, ids, lengths,
// targets and the sum of in-degrees are checked. (That each in-degree is right is protected by the checksum only.) Marks
// that are damaged, or not those of the graph, are left out.
// Writing proceeds in steps, between which the graph may change: what is changed is copied first, so the image has
// the state at its beginning.
//
// Threads: none of its own. `gather` alternates with changes; the rest of the writer runs concurrently with them.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "checkpoint/checkpoint_marks.h"
#include "graph/graph.h"

namespace ebbtide {

class CheckpointWriter final : public GraphCopy {
 public:
  // With the marks that live on; without any if null.
  CheckpointWriter(Graph& graph, std::shared_ptr<LiveMarks> live);
  void attach() override;
  void detach() override;

  // Copies the next few ids; returns true at the end of a frame, when `closeFrame` has to be called.
  bool gather();
  void closeFrame();
  // Whether everything has been gathered.
  bool done() const { return next_ >= limit_; }
  std::vector<uint8_t> finish();

  void beforeChange(NodeId id) override;

 private:
  // A node's state when the image was begun.
  struct BeforeImage {
    bool existed = false;
    uint16_t flags = 0;
    uint32_t inDegree = 0;
    int64_t expiry = 0;
    std::vector<uint32_t> words;
  };

  void gatherNode(NodeId id);
  void gatherBeforeImage(NodeId id, const BeforeImage& node);
  void gatherEdges(NodeId id, std::span<const uint32_t> words);
  void putNode(NodeId id, uint32_t flags, uint64_t degree, uint32_t inDegree, int64_t expiry);
  void clearFrame();

  const uint32_t limit_;
  const uint32_t nodes_;
  const uint64_t edges_;
  NodeId next_ = 0;
  std::unordered_map<NodeId, BeforeImage> beforeImages_;
  std::optional<MarksWriter> marks_;
  std::vector<uint8_t> out_;
  uint32_t frames_ = 0;
  // Columns of the current frame.
  std::vector<uint16_t> flags_;
  std::vector<uint8_t> exists_;
  std::vector<uint8_t> degrees_;
  std::vector<uint8_t> inDegrees_;
  std::vector<uint32_t> wideDegrees_;
  std::vector<uint32_t> wideInDegrees_;
  std::vector<int64_t> expiries_;
  std::vector<uint8_t> controls_;
  std::vector<uint8_t> data_;
  std::vector<uint32_t> scratch_;
  uint32_t ids_ = 0;        // up to the frame's last node
  uint32_t edgeCount_ = 0;
};

// Fills an empty graph. Returns false, with the graph in any state, when the bytes are not a complete checkpoint. `live` gets
// the marks that it holds, if any.
bool decodeCheckpoint(std::span<const uint8_t> bytes, Graph& graph, std::shared_ptr<LiveMarks>& live);

}  // namespace ebbtide
