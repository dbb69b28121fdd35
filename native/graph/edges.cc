// See edges.h for the contract and the threading rule.
#include "graph/edges.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace ebbtide {

namespace {

// Words of a block of each class. Close together where blocks are many.
constexpr std::array<uint8_t, 21> kSizes = {2,  3,  4,  5,  6,  8,  10, 12,  16,  20, 24,
                                            32, 40, 48, 64, 80, 96, 128, 160, 192, 254};
constexpr uint32_t kMostSmall = 254;
// A big list that has shrunk to this becomes a block again; well below kMostSmall, so that it does not switch back
// and forth.
constexpr uint64_t kBackToSmall = 96;

constexpr std::array<uint8_t, kMostSmall + 1> kClassOf = [] {
  std::array<uint8_t, kMostSmall + 1> classes{};
  uint8_t c = 0;
  for (uint32_t n = 0; n <= kMostSmall; n++) {
    while (kSizes[c] < n) c++;
    classes[n] = c;
  }
  return classes;
}();

}  // namespace

void EdgeStore::add(Node& node, uint32_t word) {
  const uint8_t degree = node.degree;
  if (degree == 0) {
    node.slot = word;
  } else if (degree == 1) {
    const uint32_t slot = allocate(kClassOf[2]);
    block(slot)[0] = node.slot;
    block(slot)[1] = word;
    node.slot = slot;
  } else if (degree < kMostSmall) {
    if (kClassOf[degree] != kClassOf[degree + 1]) {
      const uint32_t slot = allocate(kClassOf[degree + 1]);
      std::memcpy(block(slot), block(node.slot), degree * sizeof(uint32_t));
      release(node.slot, kClassOf[degree]);
      node.slot = slot;
    }
    block(node.slot)[degree] = word;
  } else if (degree == kMostSmall) {
    std::array<uint32_t, kMostSmall + 1> words;
    std::memcpy(words.data(), block(node.slot), kMostSmall * sizeof(uint32_t));
    words[kMostSmall] = word;
    const uint32_t slot = node.slot;
    toBig(node, words);
    release(slot, kClassOf[kMostSmall]);
    return;
  } else {
    BigList& list = *bigs_[node.slot];
    list.counts.at(word)++;
    list.total++;
    return;
  }
  node.degree = degree + 1;
}

bool EdgeStore::remove(Node& node, uint32_t word) {
  if (node.degree == 0) return false;
  if (node.degree == 1) {
    if (node.slot != word) return false;
    node.slot = 0;
    node.degree = 0;
    return true;
  }
  if (node.degree != kBigDegree) return removeSmall(node, word);
  if (bigs_[node.slot]->counts.find(word) == nullptr) return false;
  removeBig(node, word);
  return true;
}

bool EdgeStore::removeSmall(Node& node, uint32_t word) {
  uint32_t* words = block(node.slot);
  const uint32_t degree = node.degree;
  uint32_t* const end = words + degree;
  uint32_t* const found = std::find(words, end, word);
  if (found == end) return false;
  if (degree == 2) {
    const uint32_t other = words[found == words ? 1 : 0];
    release(node.slot, kClassOf[2]);
    node.slot = other;
  } else if (kClassOf[degree] != kClassOf[degree - 1]) {
    const uint32_t slot = allocate(kClassOf[degree - 1]);
    words = block(node.slot);
    const size_t at = static_cast<size_t>(found - words);
    std::memcpy(block(slot), words, at * sizeof(uint32_t));
    std::memcpy(block(slot) + at, words + at + 1, (degree - 1 - at) * sizeof(uint32_t));
    release(node.slot, kClassOf[degree]);
    node.slot = slot;
  } else {
    *found = end[-1];
  }
  node.degree = static_cast<uint8_t>(degree - 1);
  return true;
}

void EdgeStore::removeBig(Node& node, uint32_t word) {
  BigList& list = *bigs_[node.slot];
  if (--*list.counts.find(word) == 0) list.counts.erase(word);
  if (--list.total <= kBackToSmall) toSmall(node);
}

void EdgeStore::toBig(Node& node, std::span<const uint32_t> words) {
  auto list = std::make_unique<BigList>();
  for (const uint32_t word : words) list->counts.at(word)++;
  list->total = words.size();
  const uint32_t number = newBig();
  bigs_[number] = std::move(list);
  node.slot = number;
  node.degree = kBigDegree;
}

// Shrinking is optional: without memory for the block the list stays big, and the next removal tries again.
void EdgeStore::toSmall(Node& node) try {
  std::vector<uint32_t> words;
  sorted(node, words);
  Node small{};
  assign(small, words);
  dropBig(node.slot);
  node.slot = small.slot;
  node.degree = small.degree;
} catch (const std::bad_alloc&) {
}

void EdgeStore::assign(Node& node, std::span<const uint32_t> words) {
  if (words.empty()) return;
  if (words.size() > kMostSmall) toBig(node, words);
  else std::memcpy(reserve(node, static_cast<uint32_t>(words.size())), words.data(), words.size_bytes());
}

uint32_t* EdgeStore::reserve(Node& node, uint32_t degree) {
  if (degree > 1) node.slot = allocate(kClassOf[degree]);
  node.degree = static_cast<uint8_t>(degree);
  return degree == 1 ? &node.slot : block(node.slot);
}

void EdgeStore::sorted(const Node& node, std::vector<uint32_t>& out) const {
  if (const BigList* list = big(node)) {
    out.clear();
    out.reserve(list->total);
    list->counts.forEach([&](uint32_t word, uint32_t times) { out.insert(out.end(), times, word); });
    std::sort(out.begin(), out.end());
    return;
  }
  const auto words = small(node);
  out.assign(words.begin(), words.end());
  if (out.size() > 16) {
    std::sort(out.begin(), out.end());
    return;
  }
  for (size_t i = 1; i < out.size(); i++) {
    const uint32_t word = out[i];
    size_t at = i;
    for (; at > 0 && out[at - 1] > word; at--) out[at] = out[at - 1];
    out[at] = word;
  }
}

uint32_t EdgeStore::allocate(size_t sizeClass) {
  if (freeCount_[sizeClass] > 0) {
    const uint32_t slot = free_[sizeClass];
    free_[sizeClass] = block(slot)[0];
    freeCount_[sizeClass]--;
    return slot;
  }
  const uint32_t size = kSizes[sizeClass];
  if (used_ + size > kChunkWords) openChunk();
  const uint32_t slot = static_cast<uint32_t>(chunks_.size() - 1) << kChunkBits | used_;
  used_ += size;
  return slot;
}

void EdgeStore::release(uint32_t slot, size_t sizeClass) {
  block(slot)[0] = free_[sizeClass];
  free_[sizeClass] = slot;
  freeCount_[sizeClass]++;
}

void EdgeStore::openChunk() {
  if (chunks_.size() == kMaxChunks) throw std::bad_alloc();
  // Small graphs should not take two megabytes for their first edge; large ones benefit from huge pages.
  chunks_.emplace_back(kChunkWords * sizeof(uint32_t), !chunks_.empty());
  // The rest of the previous chunk is used for smaller blocks.
  for (size_t c = kClasses; c-- > 0;) {
    while (used_ + kSizes[c] <= kChunkWords) {
      release(static_cast<uint32_t>(chunks_.size() - 2) << kChunkBits | used_, c);
      used_ += kSizes[c];
    }
  }
  used_ = 0;
}

uint32_t EdgeStore::newBig() {
  if (!freeBigs_.empty()) {
    const uint32_t number = freeBigs_.back();
    freeBigs_.pop_back();
    return number;
  }
  // Reserves room for every number in the free list, so that dropBig never allocates.
  if (freeBigs_.capacity() <= bigs_.size()) freeBigs_.reserve(2 * bigs_.size() + 8);
  bigs_.emplace_back();
  return static_cast<uint32_t>(bigs_.size() - 1);
}

void EdgeStore::dropBig(uint32_t number) {
  bigs_[number].reset();
  freeBigs_.push_back(number);
}

size_t EdgeStore::bytes() const {
  size_t total = chunks_.empty() ? 0 : ((chunks_.size() - 1) * kChunkWords + used_) * sizeof(uint32_t);
  for (const auto& list : bigs_) {
    if (list != nullptr) total += sizeof(BigList) + list->counts.bytes();
  }
  return total;
}

void EdgeStore::clear() {
  chunks_.clear();
  used_ = kChunkWords;
  std::fill_n(free_, kClasses, 0u);
  std::fill_n(freeCount_, kClasses, 0u);
  bigs_.clear();
  freeBigs_.clear();
}

}  // namespace ebbtide
