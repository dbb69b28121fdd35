// See mark.h for the contract and the threading rule.
#include "mark/mark.h"

#include <algorithm>
#include <utility>

namespace ebbtide {

namespace {

// How far the scans and the expansion go in one step: some ten microseconds, after which a waiting writer goes first.
constexpr unsigned kSegmentBits = 13;
constexpr uint32_t kSegmentIds = 1u << kSegmentBits;
constexpr size_t kLinkEdges = 2048;
constexpr size_t kBatch = 128;
constexpr size_t kBigSlots = 4096;
constexpr size_t kTargets = 1024;
// Candidates that are sorted at once, or looked at.
constexpr size_t kFew = 2048;

constexpr uint32_t kFirst = 1u << 31;
constexpr NodeId idOf(uint32_t state) { return (state & ~kFirst) >> 1; }
constexpr uint32_t bitOf(uint32_t state) { return kPlain << (state & 1); }
constexpr uint32_t stateOf(NodeId id, uint32_t bit) { return id << 1 | (bit == kFlat ? 1u : 0u); }
static_assert(kPlain << 1 == kFlat);

// Reached states whose nodes are on their way into the cache.
class Targets {
 public:
  static constexpr size_t kMost = kTargets + kBatch + kBigDegree;

  explicit Targets(NodeTable nodes) : nodes_(nodes) {}

  // Follows an edge of a node reached plain, if `really`. The kind's upper bit is just the variant of the target.
  void addPlain(uint32_t word, bool really = true) {
    static_assert(kLabel >> 1 == 0 && kStructural >> 1 == 0 && kFlatEdge >> 1 == 1);
    nodes_.prefetch(edgeTarget(word));
    states_[size_] = word >> 1;
    size_ += really ? 1 : 0;
  }
  // Follows an edge of a node reached flat; false when that variant does not follow such edges.
  bool addFlat(uint32_t word) {
    if (edgeKind(word) != kStructural) return false;
    addPlain(word);
    states_[size_ - 1] |= 1;
    return true;
  }
  bool add(uint32_t state, uint32_t word) {
    if ((state & 1) != 0) return addFlat(word);
    addPlain(word);
    return true;
  }
  // Whether the edges of one more node might not fit.
  bool isFull() const { return size_ >= kTargets; }
  std::span<const uint32_t> take() {
    followed_ += size_;
    return {states_.data(), std::exchange(size_, 0)};
  }
  uint64_t followed() const { return followed_; }

 private:
  NodeTable nodes_;
  std::array<uint32_t, kMost> states_;
  size_t size_ = 0;
  uint64_t followed_ = 0;
};

}  // namespace

MarkRun::MarkRun(Graph& graph, int64_t now, Barrier barrier)
    : graph_(graph),
      now_(now),
      barrier_(barrier == Barrier::kOn),
      barrierIsLate_(barrier == Barrier::kLate),
      scanned_((graph.limit() + kSegmentIds - 1) >> kSegmentBits) {
  graph_.observe(this);
  graph_.setAllocationMark(barrier_ ? uint32_t{kAllocatedBlack} : 0);
}

MarkRun::MarkRun(Graph& graph, std::shared_ptr<LiveMarks> live)
    : graph_(graph),
      live_(std::move(live)),
      now_(live_->now()),
      barrier_(true),
      barrierIsLate_(false),
      phase_(Phase::kUpdating),
      scanned_((graph.limit() + kSegmentIds - 1) >> kSegmentBits) {
  counts_.edgesFollowed = live_->followed();
  counts_.marking = live_->isCounted() ? Marking::kLive : Marking::kCounted;
  graph_.observe(this);
  graph_.setAllocationMark(kAllocatedBlack);
}

void MarkRun::detach() {
  graph_.unobserve(this);
  graph_.setAllocationMark(0);
  if (live_ == nullptr || live_->isBroken()) return;
  try {
    live_->unpin();
  } catch (const std::bad_alloc&) {
    live_->markBroken();
  }
}

bool MarkRun::sortCandidates(size_t most) {
  if (!removalOrder_.sort(most)) return false;
  order_ = removalOrder_.take();
  removalOrder_ = RemovalOrder();
  return true;
}

void MarkRun::finish() {
  phase_ = Phase::kReady;
  if (!barrierIsLate_) return;
  barrier_ = true;
  graph_.setAllocationMark(kAllocatedBlack);
}

bool MarkRun::step(size_t most) {
  switch (phase_) {
    case Phase::kUpdating:
      if (updateLive(most)) phase_ = Phase::kCollecting;
      break;
    case Phase::kRoots:
      if (scanRoots()) phase_ = Phase::kTracing;
      break;
    case Phase::kTracing:
      expandSome(most);
      if (!workLeft()) {
        phase_ = Phase::kCollecting;
        next_ = 0;
      }
      break;
    case Phase::kCollecting:
      if (collect()) {
        phase_ = Phase::kLinking;
        next_ = 0;
        removalOrder_.closeIds();
      }
      break;
    case Phase::kLinking:
      if (link()) phase_ = Phase::kSorting;
      break;
    case Phase::kSorting:
    case Phase::kReady:
      return true;
  }
  return false;
}

// Counts again once at most, or changes could keep it at that for ever: what was garbage when the run began is found by
// then, and the next run sees to what is in doubt again.
bool MarkRun::updateLive(size_t most) {
  if (live_->isDoubtful() && !isRestarted_) {
    live_->restart();
    isRestarted_ = true;
    counts_.marking = Marking::kCounted;
  }
  if (!live_->step(most) || (live_->isDoubtful() && !isRestarted_)) return false;
  counts_.byType = live_->byType();
  counts_.marked = live_->marked();
  counts_.edgesFollowed = live_->followed() - counts_.edgesFollowed;
  return true;
}

bool MarkRun::scanRoots() {
  while (next_ < scanned_.size() && scanned_[next_]) next_++;
  if (next_ < scanned_.size()) scanSegment(next_++);
  return next_ >= scanned_.size();
}

void MarkRun::scanSegment(size_t segment) {
  scanned_[segment] = true;
  const auto first = static_cast<NodeId>(segment << kSegmentBits);
  if (graph_.find(first) == nullptr) return;
  Node* const nodes = &graph_.table().node(first);
  for (NodeId i = 0; i < kSegmentIds; i++) {
    const uint32_t flags = nodes[i].flags();
    nodes[i].setBits(flags);
    if ((flags & kRoot) == 0 || live_ != nullptr) continue;
    if ((flags & kExpires) == 0 || graph_.isRoot(first + i, now_)) reach(first + i, kPlain);
  }
}

// Ids that came later than the run have no marks of an earlier one.
bool MarkRun::isScanned(NodeId id) const {
  const size_t segment = id >> kSegmentBits;
  return segment >= scanned_.size() || scanned_[segment];
}

// ------------------------------------------------------------------------------------------------------- expansion

void MarkRun::expandSome(size_t most) {
  if (big_.has_value()) {
    followBig(std::min(most, kBigSlots));
    return;
  }
  if (worklist_.empty()) {
    if (bigs_.empty()) return;
    big_ = BigCursor{bigs_.back(), 0};
    bigs_.pop_back();
    return;
  }
  std::array<uint32_t, kBatch> batch;
  expandBatch({batch.data(), worklist_.take(batch.data(), std::min(most, kBatch))});
}

void MarkRun::drain() {
  while (workLeft()) expandSome();
}

// In passes, each of which brings into the cache what the next one needs: nodes, blocks of edges, targets. The first
// one has no branch that depends on a node's degree, since nobody can predict it.
void MarkRun::expandBatch(std::span<const uint32_t> states) {
  const NodeTable nodes = graph_.table();
  for (const uint32_t state : states) nodes.prefetch(idOf(state));
  Targets targets(nodes);
  std::array<uint32_t, kBatch> others;  // all but plain nodes with one edge or none
  size_t count = 0;
  for (const uint32_t state : states) {
    const Node& node = nodes.node(idOf(state));
    const uint32_t bits = node.bits();
    if (((bits >> kMarkShift) & bitOf(state)) == 0) continue;  // freed while it waited
    const uint32_t first = state >> 31;
    counts_.marked += first;
    static_assert(kPresent == 1);
    counts_.byType[typeOf(bits & kMaxFlags)] += first & bits;
    const bool simple = node.degree < 2 && (state & 1) == 0;
    targets.addPlain(simple ? node.slot : 0, simple && node.degree == 1);
    others[count] = state & ~kFirst;
    count += simple ? 0 : 1;
  }
  for (size_t i = 0; i < count; i++) graph_.edges().prefetch(nodes.node(idOf(others[i])));
  for (size_t i = 0; i < count; i++) {
    const Node& node = nodes.node(idOf(others[i]));
    if (node.degree == kBigDegree) bigs_.push_back(others[i]);
    for (const uint32_t word : graph_.edges().small(node)) targets.add(others[i], word);
    if (targets.isFull()) reachAll(targets.take());
  }
  reachAll(targets.take());
  counts_.edgesFollowed += targets.followed();
}

// Follows up to `slots` slots of the big list at hand.
void MarkRun::followBig(size_t slots) {
  const uint32_t state = big_->state;
  const bool marked = (graph_.marks(idOf(state)) & bitOf(state)) != 0;
  const BigList* list = marked ? graph_.edges().big(*graph_.find(idOf(state))) : nullptr;
  if (list == nullptr) {
    // The list shrank, or the node went, while it waited.
    big_.reset();
    if (marked) expandBatch({&state, 1});
    return;
  }
  Targets targets(graph_.table());
  const size_t end = std::min(list->counts.capacity(), big_->slot + slots);
  for (; big_->slot < end; big_->slot++) {
    const auto& slot = list->counts.slot(big_->slot);
    if (slot.key == FlatMap<uint32_t>::kEmpty) continue;
    if (targets.add(state, slot.key)) counts_.edgesFollowed += slot.value - 1;
    if (targets.isFull()) reachAll(targets.take());
  }
  reachAll(targets.take());
  counts_.edgesFollowed += targets.followed();
  if (end == list->counts.capacity()) big_.reset();
}

void MarkRun::beforeChange(NodeId id) {
  if (!isScanned(id)) scanSegment(id >> kSegmentBits);
  // A change moves the entries of a hash map about, so the list at hand is finished before it.
  while (big_.has_value() && idOf(big_->state) == id) followBig(SIZE_MAX / 2);
}

void MarkRun::reachAll(std::span<const uint32_t> states) {
  const NodeTable nodes = graph_.table();
  std::array<uint32_t, Targets::kMost> fresh;
  size_t count = 0;
  for (const uint32_t state : states) {
    Node& node = nodes.node(idOf(state));
    const uint32_t bits = node.bits();
    const uint32_t bit = bitOf(state) << kMarkShift;
    fresh[count] = state | ((bits & (kReached << kMarkShift)) == 0 ? kFirst : 0);
    count += (bits & bit) == 0 ? 1 : 0;
    node.setBits(bits | bit);
  }
  worklist_.append({fresh.data(), count});
}

void MarkRun::reach(NodeId id, uint32_t bit) {
  const uint32_t state = stateOf(id, bit);
  reachAll({&state, 1});
}

// --------------------------------------------------------------------------------------------------- write barrier

void MarkRun::writeBarrier(std::span<const uint32_t> ops) {
  if (!barrier_ || live_ != nullptr) return;
  for (size_t at = 0; at < ops.size(); at += Graph::opLength(ops[at])) {
    const NodeId id = ops[at + 1];
    if (ops[at] == kOpSet && graph_.isRoot(id, now_)) reach(id, kPlain);
    if (ops[at] != kOpAdd || !graph_.exists(ops[at + 2])) continue;
    follow(graph_.marks(id), edgeWord(ops[at + 2], ops[at + 3]));
  }
  // While the marking thread is at it, the new work is on its list. Afterwards there is nobody else to do it.
  if (phase_ > Phase::kTracing) drain();
}

void MarkRun::follow(uint32_t marks, uint32_t word) {
  const uint32_t kind = edgeKind(word);
  if ((marks & kPlain) != 0) reach(edgeTarget(word), kind == kFlatEdge ? kFlat : kPlain);
  if ((marks & kFlat) != 0 && kind == kStructural) reach(edgeTarget(word), kFlat);
}

uint64_t MarkRun::markFrom(std::span<const uint32_t> ids) {
  if (live_ != nullptr) {
    live_->revive(SIZE_MAX);
    const uint64_t before = live_->marked();
    for (const NodeId id : ids) {
      if (graph_.exists(id)) live_->pin(id);
    }
    live_->revive(SIZE_MAX);
    return live_->marked() - before;
  }
  const uint64_t before = counts_.marked;
  for (const NodeId id : ids) {
    if (graph_.exists(id)) reach(id, kPlain);
  }
  drain();
  return counts_.marked - before;
}

// ------------------------------------------------------------------------------------------------------ candidates

bool MarkRun::isCandidate(NodeId id) const {
  if (live_ != nullptr) return live_->isGarbage(id) && (marksOf(id) & kAllocatedBlack) == 0;
  constexpr uint32_t wanted = kPresent | kCollectible;
  return (graph_.flags(id) & wanted) == wanted && (graph_.marks(id) & (kReached | kAllocatedBlack)) == 0;
}

bool MarkRun::collect() {
  if (live_ != nullptr) return collectListed();
  if (next_ < graph_.limit()) collectSegment(next_ >> kSegmentBits);
  next_ += kSegmentIds;
  return next_ >= graph_.limit();
}

void MarkRun::collectSegment(size_t segment) {
  const auto first = static_cast<NodeId>(segment << kSegmentBits);
  if (live_ != nullptr) {
    live_->forEachListed(first, kSegmentIds, [this](NodeId id) {
      if (isCandidate(id)) removalOrder_.add(id);
    });
    return;
  }
  constexpr uint32_t wanted = kPresent | kCollectible;
  constexpr uint32_t looked = wanted | (kReached | kAllocatedBlack) << kMarkShift;
  if (graph_.find(first) == nullptr) return;
  const Node* const nodes = &graph_.table().node(first);
  for (NodeId i = 0; i < kSegmentIds; i++) {
    if ((nodes[i].bits() & looked) == wanted) removalOrder_.add(first + i);
  }
}

// Few are sorted. Of many it is found out in which segments they are, which are then looked through.
bool MarkRun::collectListed() {
  if (!isSifted_) {
    isSifted_ = live_->sift(SIZE_MAX);
    if (!isSifted_ || live_->listedGarbage() > kFew) return false;
    std::vector<NodeId> ids;
    for (size_t i = 0; i < live_->listedGarbage(); i++) ids.push_back(live_->garbageAt(i));
    std::sort(ids.begin(), ids.end());
    for (const NodeId id : ids) {
      if (isCandidate(id)) removalOrder_.add(id);
    }
    return true;
  }
  for (size_t n = 0; n < kFew && listed_ < live_->listedGarbage(); n++, listed_++) {
    const size_t segment = live_->garbageAt(listed_) >> kSegmentBits;
    if (segment >= segments_.size()) segments_.resize(segment + 1);
    segments_[segment] = true;
  }
  if (listed_ < live_->listedGarbage()) return false;
  while (next_ < segments_.size() && !segments_[next_]) next_++;
  if (next_ < segments_.size()) collectSegment(next_++);
  return next_ >= segments_.size();
}

// A big list that changes between two steps may lose or repeat an edge here. That moves a place in the order, which
// is a courtesy; safety never hangs on it.
bool MarkRun::link() {
  const size_t size = removalOrder_.size();
  size_t left = kLinkEdges;
  while (next_ < size && left > 0) {
    const Node* node = graph_.find(removalOrder_.id(next_));
    const BigList* big = node == nullptr ? nullptr : graph_.edges().big(*node);
    left--;
    if (big != nullptr && linkSlot_ < big->counts.capacity()) {
      const size_t end = std::min(big->counts.capacity(), linkSlot_ + left);
      left -= end - linkSlot_;
      for (; linkSlot_ < end; linkSlot_++) {
        const auto& slot = big->counts.slot(linkSlot_);
        if (slot.key != FlatMap<uint32_t>::kEmpty) removalOrder_.target(edgeTarget(slot.key));
      }
      continue;
    }
    if (big == nullptr && node != nullptr) {
      for (const uint32_t word : graph_.edges().small(*node)) removalOrder_.target(edgeTarget(word));
      left -= std::min<size_t>(left, node->degree);
    }
    removalOrder_.next();
    linkSlot_ = 0;
    next_++;
  }
  return next_ == size;
}

std::vector<NodeId> MarkRun::candidates(size_t from, size_t count) const {
  std::vector<NodeId> ids;
  const size_t begin = std::min(from, order_.size());
  const size_t end = begin + std::min(count, order_.size() - begin);
  ids.reserve(end - begin);
  for (size_t i = begin; i < end; i++) {
    if (isCandidate(order_[i])) ids.push_back(order_[i]);
  }
  return ids;
}

}  // namespace ebbtide
