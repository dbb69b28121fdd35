// The section of a checkpoint that holds marks which live on (live.h), so that an opening need not find them. Behind the
// frames (checkpoint.h), if the header says so:
//
//   i64 time aimed at, u32 nodes that are not marked plain, u32 nodes that are marked flat, u32 CRC-32C of the rest of the
//   section, begun with that of the header; then both lists, ascending: each id as the distance from the one before
//   (the first from -1), in seven bits a byte, the low ones first, the eighth says that more follow
//
// Contract: written only of marks that are up to date, not in doubt and without pins, so it is determined by graph and time.
// What is read is a claim: LiveMarks::adopt checks it against the graph. bad_alloc while marks are copied drops the section,
// not the checkpoint.
//
// Threads: none of its own. `gather` and `beforeMarks` take turns with changes, under their lock; the rest runs beside them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/flat_map.h"
#include "mark/live.h"

namespace ebbtide {

class MarksWriter final : public LiveObserver {
 public:
  // Of ids below `limit`.
  MarksWriter(std::shared_ptr<LiveMarks> live, NodeId limit)
      : live_(std::move(live)), now_(live_->now()), restarts_(live_->restarts()), limit_(limit) {}
  // Listens to the marks. Due, under the same lock, once it is made; `detach` before it is dropped.
  void attach() { live_->observe(this); }
  void detach() { live_->unobserve(this); }

  // Copies the marks of a node that existed at the beginning. REQUIRES: ascending calls.
  void gather(NodeId id);
  void beforeMarks(NodeId id) override;
  // The section, to be sealed; empty when the marks were lost meanwhile.
  std::vector<uint8_t> finish();

 private:
  struct Ids {
    std::vector<uint8_t> bytes;
    uint32_t count = 0;
    NodeId next = 0;  // the last one + 1
    void add(NodeId id);
  };

  const std::shared_ptr<LiveMarks> live_;
  const int64_t now_;
  const uint64_t restarts_;
  const NodeId limit_;
  bool isLost_ = false;
  NodeId next_ = 0;
  FlatMap<uint8_t> earlier_;  // marks at the beginning of nodes that have changed theirs since
  Ids unmarked_;
  Ids flat_;
};

// Puts in the checksum of a section.
void sealMarks(std::span<uint8_t> section, uint32_t headerChecksum);
// Nothing when the bytes are not such a section.
std::optional<SavedMarks> decodeMarks(std::span<const uint8_t> bytes, uint32_t headerChecksum);

}  // namespace ebbtide
