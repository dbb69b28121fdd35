// Storage of edges. A node has eight bytes; a single edge is one of its words, two to 254 edges are a block of a
// pooled arena, more are a hash map of their own (so that a lease of a million resources can lose them one by one).
//
// Contract: a multiset of edge words for each node, unordered. A call that runs out of memory throws bad_alloc and
// changes nothing. Threads: none of its own; the owner locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/flat_map.h"
#include "base/pages.h"
#include "base/types.h"

namespace ebbtide {

// Flags and marks share `both`. A marking thread writes it, with the lock, while the owner reads flags without
// (core.h): each access is one relaxed load or store of the whole, and writers hold the lock.
struct Node {
  uint32_t slot;     // the only edge; else the block's position in the arena, or the big list's index
  uint16_t both;     // flags, and marks above them; accessed by bits() and setBits() only
  uint8_t degree;    // number of edges; kBigDegree: a big list
  uint8_t inDegree;  // 255: an entry in Graph's wide in-degrees

  uint32_t bits() const { return __atomic_load_n(&both, __ATOMIC_RELAXED); }
  void setBits(uint32_t bits) { __atomic_store_n(&both, static_cast<uint16_t>(bits), __ATOMIC_RELAXED); }
  uint32_t flags() const { return bits() & kMaxFlags; }
  uint32_t marks() const { return bits() >> kMarkShift; }
  void setFlags(uint32_t flags) { setBits((bits() & ~kMaxFlags) | flags); }
  void setMarks(uint32_t marks) { setBits(flags() | marks << kMarkShift); }
};
static_assert(sizeof(Node) == 8);

inline constexpr uint8_t kBigDegree = 255;

// The edges of a node with more than 254: word → multiplicity.
struct BigList {
  FlatMap<uint32_t> counts;
  uint64_t total = 0;
};

class EdgeStore {
 public:
  EdgeStore() = default;
  EdgeStore(const EdgeStore&) = delete;
  EdgeStore& operator=(const EdgeStore&) = delete;

  void add(Node& node, uint32_t word);
  // Returns false when the node has no such edge.
  bool remove(Node& node, uint32_t word);
  // Sets the edges. REQUIRES: the node has none.
  void assign(Node& node, std::span<const uint32_t> words);
  // Reserves 1 to 254 edges, which the caller fills in before anything else happens. REQUIRES: the node has none.
  uint32_t* reserve(Node& node, uint32_t degree);

  uint64_t degree(const Node& node) const {
    return node.degree == kBigDegree ? bigs_[node.slot]->total : node.degree;
  }
  // Edges of a node with at most 254, without copying; valid until the next change.
  std::span<const uint32_t> small(const Node& node) const {
    if (node.degree == 1) return {&node.slot, 1};
    if (node.degree == 0 || node.degree == kBigDegree) return {};
    return {block(node.slot), node.degree};
  }
  const BigList* big(const Node& node) const {
    return node.degree == kBigDegree ? bigs_[node.slot].get() : nullptr;
  }
  void prefetch(const Node& node) const {
    if (node.degree > 1 && node.degree != kBigDegree) __builtin_prefetch(block(node.slot));
  }

  // visit(word, multiplicity)
  template <typename Visit>
  void forEach(const Node& node, Visit visit) const {
    if (const BigList* list = big(node)) {
      list->counts.forEach([&](uint32_t word, uint32_t times) { visit(word, times); });
    } else {
      for (const uint32_t word : small(node)) visit(word, 1u);
    }
  }
  // All words, repeated by multiplicity, ascending.
  void sorted(const Node& node, std::vector<uint32_t>& out) const;

  size_t bytes() const;
  void clear();

 private:
  static constexpr unsigned kChunkBits = 19;
  static constexpr uint32_t kChunkWords = 1u << kChunkBits;
  static constexpr size_t kMaxChunks = size_t{1} << (32 - kChunkBits);
  static constexpr size_t kClasses = 21;

  uint32_t* block(uint32_t slot) const { return chunks_[slot >> kChunkBits].as<uint32_t>() + (slot & (kChunkWords - 1)); }
  uint32_t allocate(size_t sizeClass);
  void release(uint32_t slot, size_t sizeClass);
  void openChunk();
  void toBig(Node& node, std::span<const uint32_t> words);
  void toSmall(Node& node);
  void removeBig(Node& node, uint32_t word);
  bool removeSmall(Node& node, uint32_t word);
  uint32_t newBig();
  void dropBig(uint32_t number);

  std::vector<Pages> chunks_;
  uint32_t used_ = kChunkWords;  // words used of the last chunk
  // First free block of each class; a free block's first word is the position of the next one.
  uint32_t free_[kClasses] = {};
  uint32_t freeCount_[kClasses] = {};
  std::vector<std::unique_ptr<BigList>> bigs_;
  std::vector<uint32_t> freeBigs_;
};

}  // namespace ebbtide
