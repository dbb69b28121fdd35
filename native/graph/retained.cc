// See retained.h for the contract and the threading rule.
#include "graph/retained.h"

#include <cmath>

namespace ebbtide {

namespace {

constexpr double kMostBytes = 9007199254740991.0;  // 2^53 - 1

// Bits of a state: number << 1, | 1 for the flat variant.
enum StateBit : uint8_t {
  kKept = 1,     // something keeps it now
  kBelow = 2,    // reached from the current set
  kStays = 4,    // of those, kept without the set
  kMember = 8,   // of the set; both variants
};

class Sizes {
 public:
  Sizes(const GraphSnapshot& snapshot, const RetainedQuery& query, Cancellation& cancellation)
      : snapshot_(snapshot),
        itemOfId_(query.itemOf),
        sizes_(query.sizes),
        cancellation_(cancellation),
        bits_(2 * size_t{snapshot.size()}) {
    nameItems();
    for (uint32_t node = 0; node < snapshot.size(); node++) {
      if (snapshot.isRoot[node] != 0) enter(node << 1, kKept, reached_);
    }
    spread(kKept, 0, reached_);
  }

  double kept() {
    double bytes = 0;
    for (uint32_t item = 0; item < sizes_.size(); item++) {
      if (isNamed(item, [this](uint32_t node) { return ((bits_[node << 1] | bits_[node << 1 | 1]) & kKept) != 0; })) {
        bytes += sizes_[item];
      }
    }
    return bytes;
  }

  void removal(std::span<const NodeId> ids, RetainedSums& sums) {
    uint32_t reached = 0;
    for (const NodeId id : ids) {
      cancellation_.poll();
      const uint32_t node = snapshot_.numbers.rankOf(id);
      if (node == IdRanks::kNone || (bits_[node << 1] & kMember) != 0) continue;
      members_.push_back(node);
      const uint32_t first = node << 1;
      if (((bits_[first] | bits_[first | 1]) & kKept) != 0) reached++;
      for (const uint32_t state : {first, first | 1}) {
        bits_[state] |= kMember;
        if ((bits_[state] & kKept) != 0) enter(state, kBelow, below_);
      }
    }
    spread(kBelow, 0, below_);
    for (const uint32_t state : below_) {
      if (isKeptOutside(state)) enter(state, kStays, stays_);
    }
    spread(kStays, kMember, stays_);
    sum(sums);
    sums.reached.push_back(reached);
    forget();
  }

 private:
  void nameItems() {
    itemOf_.reserve(snapshot_.size());
    firstNamer_.assign(sizes_.size() + 1, 0);
    for (const NodeId id : snapshot_.ids) {
      const uint32_t item = id < itemOfId_.size() ? itemOfId_[id] : RetainedQuery::kNoItem;
      itemOf_.push_back(item);
      if (item != RetainedQuery::kNoItem) firstNamer_[item + 1]++;
      cancellation_.poll();
    }
    for (size_t item = 0; item < sizes_.size(); item++) firstNamer_[item + 1] += firstNamer_[item];
    std::vector<uint32_t> filled(firstNamer_.begin(), firstNamer_.end() - 1);
    namers_.resize(firstNamer_.back());
    for (uint32_t node = 0; node < snapshot_.size(); node++) {
      if (itemOf_[node] != RetainedQuery::kNoItem) namers_[filled[itemOf_[node]]++] = node;
    }
    counted_.assign(sizes_.size(), 0);
  }

  template <typename Test>
  bool isNamed(uint32_t item, Test test) {
    for (uint32_t at = firstNamer_[item]; at < firstNamer_[item + 1]; at++) {
      cancellation_.poll();
      if (test(namers_[at])) return true;
    }
    return false;
  }

  void enter(uint32_t state, uint8_t bit, std::vector<uint32_t>& list) {
    if ((bits_[state] & bit) != 0) return;
    bits_[state] |= bit;
    list.push_back(state);
  }

  // Gives the bit to all that the listed states lead to, but for states with a bit of `shut`.
  void spread(uint8_t bit, uint8_t shut, std::vector<uint32_t>& list) {
    for (size_t at = 0; at < list.size(); at++) {
      const uint32_t state = list[at];
      const uint32_t isFlat = state & 1;
      for (const uint32_t word : snapshot_.out.of(state >> 1)) {
        cancellation_.poll();
        const uint32_t kind = edgeKind(word);
        if (isFlat != 0 && kind != kStructural) continue;
        const uint32_t to = edgeTarget(word) << 1 | isFlat | (kind == kFlatEdge ? 1u : 0u);
        if ((bits_[to] & shut) == 0) enter(to, bit, list);
      }
    }
  }

  // Kept by something that does not depend on the set: a root, or with a predecessor that is kept from elsewhere.
  bool isKeptOutside(uint32_t state) {
    if ((bits_[state] & kMember) != 0) return false;
    const uint32_t isFlat = state & 1;
    if (isFlat == 0 && snapshot_.isRoot[state >> 1] != 0) return true;
    for (const uint32_t word : snapshot_.in.of(state >> 1)) {
      cancellation_.poll();
      const uint32_t kind = edgeKind(word);
      const uint32_t from = edgeTarget(word) << 1;
      // Plain states come from plain ones; flat states from plain ones by flat edges, from flat ones by structural.
      if (isFlat == 0 ? kind != kFlatEdge && isElsewhere(from)
                      : (kind == kFlatEdge && isElsewhere(from)) || (kind == kStructural && isElsewhere(from | 1))) {
        return true;
      }
    }
    return false;
  }
  bool isElsewhere(uint32_t state) const { return (bits_[state] & (kKept | kBelow)) == kKept; }

  void sum(RetainedSums& sums) {
    double total = 0;
    double retained = 0;
    for (const uint32_t state : below_) {
      const uint32_t item = itemOf_[state >> 1];
      if (item == RetainedQuery::kNoItem || counted_[item] != 0) continue;
      counted_[item] = 1;
      items_.push_back(item);
      total += sizes_[item];
      if (!isNamed(item, [this](uint32_t node) { return survives(node << 1) || survives(node << 1 | 1); })) {
        retained += sizes_[item];
      }
    }
    sums.total.push_back(total);
    sums.retained.push_back(retained);
  }
  bool survives(uint32_t state) const { return isElsewhere(state) || (bits_[state] & kStays) != 0; }

  // Resets what belongs to the current set.
  void forget() {
    for (const uint32_t state : below_) bits_[state] &= kKept;
    for (const uint32_t node : members_) {
      bits_[node << 1] &= kKept;
      bits_[node << 1 | 1] &= kKept;
    }
    for (const uint32_t item : items_) counted_[item] = 0;
    below_.clear();
    stays_.clear();
    members_.clear();
    items_.clear();
  }

  const GraphSnapshot& snapshot_;
  const std::span<const uint32_t> itemOfId_;
  const std::span<const double> sizes_;
  Cancellation& cancellation_;
  std::vector<uint8_t> bits_;        // by state
  std::vector<uint32_t> itemOf_;     // by number
  std::vector<uint32_t> firstNamer_; // by item, into namers_
  std::vector<uint32_t> namers_;     // numbers
  std::vector<uint8_t> counted_;     // by item
  std::vector<uint32_t> reached_;
  // Of the current set: states, numbers, items.
  std::vector<uint32_t> below_;
  std::vector<uint32_t> stays_;
  std::vector<uint32_t> members_;
  std::vector<uint32_t> items_;
};

void checkIds(std::span<const NodeId> ids) {
  for (const NodeId id : ids) {
    if (id >= kMaxNodes) throw invalidArgument("node id " + std::to_string(id) + " is beyond the limit");
  }
}

}  // namespace

void RetainedQuery::check() const {
  double sum = 0;
  for (const double size : sizes) {
    if (!(size >= 0) || std::floor(size) != size) throw invalidArgument("sizes must be whole numbers of bytes");
    sum += size;
    if (sum > kMostBytes) throw invalidArgument("sizes add up to more than 2^53 - 1 bytes");
  }
  for (const uint32_t item : itemOf) {
    if (item != kNoItem && item >= sizes.size()) {
      throw invalidArgument("item " + std::to_string(item) + " has no size");
    }
  }
  uint32_t before = 0;
  for (const uint32_t end : ends) {
    if (end < before || end > members.size()) throw invalidArgument("the ends of the sets are not ascending in members");
    before = end;
  }
  if (before != members.size()) throw invalidArgument("there are members that belong to no set");
  if (edges.size() % 2 != 0) throw invalidArgument("an extra edge has no target");
  if (edges.size() / 2 > kMaxEdges) throw invalidArgument("too many extra edges");
  checkIds(members);
  checkIds(roots);
  checkIds(edges);
}

RetainedSums retainedSums(const GraphSnapshot& snapshot, const RetainedQuery& query, Cancellation& cancellation) {
  RetainedSums sums;
  Sizes sizes(snapshot, query, cancellation);
  sums.kept = sizes.kept();
  sums.total.reserve(query.ends.size());
  sums.retained.reserve(query.ends.size());
  sums.reached.reserve(query.ends.size());
  const std::span<const NodeId> members(query.members);
  uint32_t start = 0;
  for (const uint32_t end : query.ends) {
    sizes.removal(members.subspan(start, end - start), sums);
    start = end;
  }
  return sums;
}

}  // namespace ebbtide
