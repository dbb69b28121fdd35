// A count and eight flags for each state (live.h), two bytes each, in pieces that exist where they were written.
//
// Contract: a state that was never written reads as zero. bad_alloc when there is no memory, with nothing changed.
// Memory: 2 bytes an id and variant in pieces of 2 MiB, of which untouched pages cost nothing, and a hash entry for each
// count beyond 254. Threads: none of its own; the owner locks.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "base/flat_map.h"
#include "base/pages.h"
#include "base/types.h"

namespace ebbtide {

class LiveCells {
 public:
  enum Flag : uint32_t {
    kExpanded = 1,  // its edges are counted at their targets
    kRooted = 2,    // its count has one for a root
    kPinned = 4,    // and one for a pin
    kTyped = 8,     // its node is in the sums by type, of what is marked or of garbage
    // It is in the list of that name.
    kWaiting = 16,
    kLost = 32,
    kSuspect = 64,
    kGarbage = 128,  // of the plain state
    kFresh = 128,    // of the flat one
    kInLists = kWaiting | kLost | kSuspect | kGarbage,
  };

  uint32_t flags(uint32_t state) const {
    const uint16_t* cell = find(state);
    return cell == nullptr ? 0 : *cell >> 8;
  }
  uint32_t count(uint32_t state) const {
    const uint16_t* cell = find(state);
    if (cell == nullptr) return 0;
    return (*cell & kMost) != kMost ? *cell & kMost : *wide_.find(state);
  }
  void setFlag(uint32_t state, uint32_t flag) { at(state) |= static_cast<uint16_t>(flag << 8); }
  void clearFlag(uint32_t state, uint32_t flag) {
    if (uint16_t* cell = find(state)) *cell &= static_cast<uint16_t>(~(flag << 8));
  }

  // Returns the state's flags.
  uint32_t countUp(uint32_t state, uint32_t times) {
    uint16_t& cell = at(state);
    const uint32_t count = cell & kMost;
    if (count + times < kMost) {
      cell = static_cast<uint16_t>(cell + times);
    } else {
      uint32_t& wide = wide_.at(state);
      wide = (count == kMost ? wide : count) + times;
      cell |= kMost;
    }
    return cell >> 8;
  }
  // The same; nothing, and no change, when the count is not as high.
  std::optional<uint32_t> countDown(uint32_t state, uint32_t times) {
    uint16_t* cell = find(state);
    uint32_t* wide = nullptr;
    uint32_t count = cell == nullptr ? 0 : *cell & kMost;
    if (count == kMost) {
      wide = wide_.find(state);
      count = *wide;
    }
    if (cell == nullptr || count < times) return std::nullopt;
    count -= times;
    if (count >= kMost) {
      *wide = count;
      return *cell >> 8;
    }
    if (wide != nullptr) wide_.erase(state);
    *cell = static_cast<uint16_t>((*cell & ~kMost) | count);
    return *cell >> 8;
  }
  // Clears count and flags, but for those that say which lists it is in.
  void reset(uint32_t state) {
    uint16_t* cell = find(state);
    if (cell == nullptr) return;
    if ((*cell & kMost) == kMost) wide_.erase(state);
    *cell &= kInLists << 8;
  }

  // Of a state that was never written.
  void set(uint32_t state, uint32_t count, uint32_t flags) {
    uint16_t& cell = at(state);
    if (count >= kMost) wide_.at(state) = count;
    cell = static_cast<uint16_t>(std::min<uint32_t>(count, kMost) | flags << 8);
  }

  // The cells of this state and of the next ids', as far as a piece goes: count below 255, flags << 8.
  uint16_t* row(uint32_t state) { return &at(state); }
  // visit(distance) for each of `count` states of a variant from this one on that has a flag, ascending. REQUIRES: they are in
  // one piece, and a multiple of four.
  template <typename Visit>
  void forEachWith(uint32_t flag, uint32_t state, uint32_t count, Visit visit) const {
    const uint16_t* cells = find(state);
    if (cells == nullptr) return;
    const auto one = static_cast<uint16_t>(flag << 8);
    // Most have none: four are looked at together.
    const uint64_t any = one * 0x0001000100010001u;
    for (uint32_t i = 0; i < count; i += 4) {
      uint64_t four;
      std::memcpy(&four, cells + i, sizeof four);
      if ((four & any) == 0) continue;
      for (uint32_t k = i; k < i + 4; k++) {
        if ((cells[k] & one) != 0) visit(k);
      }
    }
  }

  void prefetch(uint32_t state) const {
    if (const uint16_t* cell = find(state)) __builtin_prefetch(cell, 1);
  }

  // Forgets all. The memory goes piece by piece, with `giveBack`; true when all has gone.
  void clear() {
    for (Variant& variant : variants_) {
      retired_.reserve(retired_.size() + variant.pages.size());
      for (Pages& pages : variant.pages) retired_.push_back(std::move(pages));
      variant = {};
    }
    wide_.clear();
  }
  bool giveBack() {
    if (!retired_.empty()) retired_.pop_back();
    return retired_.empty();
  }
  size_t bytes() const {
    size_t pieces = 0;
    for (const Variant& variant : variants_) pieces += variant.pages.size();
    return pieces * kBytes + wide_.bytes();
  }

 private:
  static constexpr unsigned kBits = 20;
  static constexpr size_t kBytes = sizeof(uint16_t) << kBits;
  static constexpr uint16_t kMost = 255;
  struct Variant {
    std::vector<uint16_t*> bases;
    std::vector<Pages> pages;
  };

  uint16_t* find(uint32_t state) const {
    const Variant& variant = variants_[state & 1];
    const size_t b = state >> (kBits + 1);
    if (b >= variant.bases.size() || variant.bases[b] == nullptr) return nullptr;
    return variant.bases[b] + ((state >> 1) & ((1u << kBits) - 1));
  }
  uint16_t& at(uint32_t state) {
    uint16_t* cell = find(state);
    return cell != nullptr ? *cell : make(state);
  }
  uint16_t& make(uint32_t state) {
    Variant& variant = variants_[state & 1];
    const size_t b = state >> (kBits + 1);
    if (b >= variant.bases.size()) variant.bases.resize(b + 1);
    variant.pages.reserve(variant.pages.size() + 1);
    // The first piece serves small graphs too and stays in small pages.
    variant.pages.emplace_back(kBytes, b > 0);
    variant.bases[b] = variant.pages.back().as<uint16_t>();
    return *find(state);
  }

  std::array<Variant, 2> variants_;
  FlatMap<uint32_t> wide_;  // exact counts of 255 and more
  std::vector<Pages> retired_;
};

}  // namespace ebbtide
