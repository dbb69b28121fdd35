// See live.h for the contract and the threading rule.
#include "mark/live.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace ebbtide {

namespace {

// How much is taken up in one step: some ten microseconds.
constexpr uint32_t kSegmentIds = 1u << 13;
constexpr size_t kBatch = 128;
constexpr size_t kBigSlots = 4096;
constexpr size_t kExpiries = 256;
constexpr size_t kSifted = 2048;
constexpr size_t kMostFresh = size_t{1} << 18;
// Most edges that one trial looks at. The longest chains of snapshots, and an index with its images, take some hundred.
constexpr size_t kTrialEdges = 2048;

constexpr bool isFlat(uint32_t state) { return (state & 1) != 0; }
// The state that an edge of a state leads to; kNowhere when that variant does not follow it.
constexpr uint32_t kNowhere = 0xffffffff;
constexpr uint32_t targetOf(uint32_t state, uint32_t word) {
  const uint32_t kind = edgeKind(word);
  if (isFlat(state)) return kind == kStructural ? edgeTarget(word) << 1 | 1 : kNowhere;
  return edgeTarget(word) << 1 | (kind == kFlatEdge ? 1 : 0);
}

}  // namespace

LiveMarks::LiveMarks(Graph& graph, int64_t now, LiveFault fault)
    : graph_(graph), fault_(fault), now_(now) {
  graph_.observe(this);
}

void LiveMarks::restart() {
  cells_.clear();
  waiting_ = {};
  lost_ = {};
  suspects_ = {};
  garbage_ = {};
  sifted_ = {};
  fresh_.clear();
  keepsFresh_ = false;
  pins_.clear();
  big_.reset();
  expiring_.clear();
  expiries_.clear();
  recheck_.reset();
  byType_ = {};
  garbageByType_ = {};
  marked_ = 0;
  scan_ = Scan::kRoots;
  next_ = 0;
  doubtful_ = false;
  broken_ = false;
  restarts_++;
}

// ---------------------------------------------------------------------------------------------------------- counts

template <typename Visit>
void LiveMarks::forEachTarget(std::span<const uint32_t> words, uint32_t state, Visit visit) {
  for (const uint32_t word : words) {
    const uint32_t target = targetOf(state, word);
    if (target != kNowhere) visit(target);
  }
}

void LiveMarks::enlist(uint32_t state, uint32_t flag, ChunkedWords& list) {
  list.push(state);
  cells_.setFlag(state, flag);
}

void LiveMarks::add(uint32_t state, uint32_t times) {
  followed_ += times;
  const uint32_t flags = cells_.countUp(state, times);
  if ((flags & (LiveCells::kExpanded | LiveCells::kWaiting)) != 0 || fault_ == LiveFault::kNoRevive) return;
  enlist(state, LiveCells::kWaiting, waiting_);
}

// A state that is not expanded is listed too: it may be expanded before this is looked at.
void LiveMarks::drop(uint32_t state, uint32_t times) {
  followed_ += times;
  const auto flags = cells_.countDown(state, times);
  if (!flags.has_value()) markBroken();
  else if ((*flags & LiveCells::kLost) == 0) enlist(state, LiveCells::kLost, lost_);
}

void LiveMarks::setExpanded(uint32_t state, bool expanded) {
  const NodeId id = idOf(state);
  for (LiveObserver* observer : observers_) observer->beforeMarks(id);
  discount(id);
  const bool was = marksOf(id) != 0;
  if (expanded) cells_.setFlag(state, LiveCells::kExpanded);
  else cells_.clearFlag(state, LiveCells::kExpanded);
  const bool is = marksOf(id) != 0;
  if (is && !was) marked_++;
  if (was && !is) marked_--;
  recount(id);
}

void LiveMarks::discount(NodeId id) {
  const uint32_t state = stateOf(id, kPlain);
  if ((cells_.flags(state) & LiveCells::kTyped) == 0) return;
  (marksOf(id) != 0 ? byType_ : garbageByType_)[typeOf(graph_.flags(id))]--;
  cells_.clearFlag(state, LiveCells::kTyped);
}

void LiveMarks::recount(NodeId id) {
  const bool isMarked = marksOf(id) != 0;
  if (!isMarked) listGarbage(id);
  const uint32_t flags = graph_.flags(id);
  const uint32_t state = stateOf(id, kPlain);
  constexpr uint32_t wanted = kPresent | kCollectible;
  if (isMarked ? (flags & kPresent) == 0 : (flags & wanted) != wanted) return;
  if ((cells_.flags(state) & LiveCells::kTyped) != 0) return;
  cells_.setFlag(state, LiveCells::kTyped);
  (isMarked ? byType_ : garbageByType_)[typeOf(flags)]++;
}

void LiveMarks::listGarbage(NodeId id) {
  if (!isGarbage(id)) return;
  listFresh(id);
  const uint32_t state = stateOf(id, kPlain);
  if ((cells_.flags(state) & LiveCells::kGarbage) != 0) return;
  garbage_.push(id);
  cells_.setFlag(state, LiveCells::kGarbage);
}

// Not by the list of garbage: most nodes are in it from their creation on, before something refers to them, and until it is
// sifted.
void LiveMarks::listFresh(NodeId id) {
  const uint32_t state = stateOf(id, kFlat);
  if (!keepsFresh_ || (cells_.flags(state) & LiveCells::kFresh) != 0) return;
  if (fresh_.size() == kMostFresh) {
    forgetFresh();
    return;
  }
  fresh_.push_back(id);
  cells_.setFlag(state, LiveCells::kFresh);
}

// From now on all garbage counts as new.
void LiveMarks::forgetFresh() {
  keepsFresh_ = false;
  for (const NodeId id : std::exchange(fresh_, {})) cells_.clearFlag(stateOf(id, kFlat), LiveCells::kFresh);
}

std::vector<NodeId> LiveMarks::takeFresh() {
  std::vector<NodeId> fresh;
  if (keepsFresh_) {
    fresh = fresh_;
    forgetFresh();
    std::erase_if(fresh, [this](NodeId id) { return !isGarbage(id); });
  } else {
    for (size_t i = 0; i < garbage_.size() && fresh.size() < kMostFresh; i++)
      if (isGarbage(garbage_[i])) fresh.push_back(garbage_[i]);
  }
  keepsFresh_ = true;
  return fresh;
}

bool LiveMarks::sift(size_t most) {
  std::array<uint32_t, kSifted> ids;
  const size_t count = garbage_.take(ids.data(), std::min(most, kSifted));
  for (size_t i = 0; i < count; i++) {
    if (isGarbage(ids[i])) sifted_.push(ids[i]);
    else cells_.clearFlag(stateOf(ids[i], kPlain), LiveCells::kGarbage);
  }
  if (!garbage_.empty()) return false;
  std::swap(garbage_, sifted_);
  return true;
}

// ----------------------------------------------------------------------------------------------------------- batches

void LiveMarks::beforeBatch(std::span<const uint32_t> ops) {
  for (size_t at = 0; at < ops.size();) {
    const size_t length = Graph::opLength(ops[at]);
    if (length == 0 || length > ops.size() - at) return;
    if ((ops[at] == kOpSet || ops[at] == kOpFree) && ops[at + 1] < kMaxNodes) discount(ops[at + 1]);
    at += length;
  }
}

void LiveMarks::afterBatch(std::span<const uint32_t> ops, bool applied) {
  for (size_t at = 0; at < ops.size();) {
    const size_t length = Graph::opLength(ops[at]);
    if (length == 0 || length > ops.size() - at) return;
    const uint32_t code = ops[at];
    const NodeId id = ops[at + 1];
    if (code == kOpSet || code == kOpFree) {
      if (applied && code == kOpFree) forget(id);
      if (applied && code == kOpSet) updateRoot(id);
      if (id < kMaxNodes) recount(id);
    } else if (applied) {
      followEdge(id, ops[at + 2], ops[at + 3], code == kOpAdd);
    }
    at += length;
  }
}

void LiveMarks::followEdge(NodeId from, NodeId to, uint32_t kind, bool isNew) {
  for (const uint32_t variant : {kPlain, kFlat}) {
    const uint32_t state = stateOf(from, variant);
    if ((cells_.flags(state) & LiveCells::kExpanded) == 0) continue;
    const uint32_t target = targetOf(state, edgeWord(to, kind));
    if (target == kNowhere) continue;
    if (!isNew) drop(target, 1);
    else add(target, fault_ == LiveFault::kEdgeTwice ? 2 : 1);
  }
}

// Counts the node as a root, or not, as it is at the time aimed at. What was set and freed in one batch is none.
void LiveMarks::updateRoot(NodeId id) {
  indexExpiry(id);
  const uint32_t state = stateOf(id, kPlain);
  const bool was = (cells_.flags(state) & LiveCells::kRooted) != 0;
  const bool is = graph_.isRoot(id, now_);
  if (is == was) return;
  if (is) {
    if (fault_ == LiveFault::kNoRootWeight && scan_ == Scan::kDone) return;
    cells_.setFlag(state, LiveCells::kRooted);
    add(state, 1);
  } else {
    cells_.clearFlag(state, LiveCells::kRooted);
    drop(state, 1);
  }
}

void LiveMarks::indexExpiry(NodeId id) {
  constexpr uint32_t wanted = kRoot | kExpires;
  const bool wants = (graph_.flags(id) & wanted) == wanted;
  const int64_t expiry = wants ? graph_.expiry(id).value_or(0) : 0;
  if (int64_t* known = expiries_.find(id)) {
    if (wants && *known == expiry) return;
    expiring_.erase({*known, id});
    if (!wants) expiries_.erase(id);
  }
  if (!wants) return;
  expiries_.at(id) = expiry;
  expiring_.insert({expiry, id});
}

// A node that is freed has no edges, in or out; it has, when in-degrees of a damaged checkpoint are wrong. What it is set to
// later in the batch may have been counted already.
void LiveMarks::forget(NodeId id) {
  for (LiveObserver* observer : observers_) observer->beforeMarks(id);
  discount(id);
  if (const int64_t* known = expiries_.find(id)) {
    expiring_.erase({*known, id});
    expiries_.erase(id);
  }
  if (marksOf(id) != 0) marked_--;
  for (const MarkBit variant : {kPlain, kFlat}) {
    const uint32_t flags = cells_.flags(stateOf(id, variant));
    const uint32_t own = ((flags & LiveCells::kRooted) != 0 ? 1 : 0) + ((flags & LiveCells::kPinned) != 0 ? 1 : 0);
    if (countOf(id, variant) != own) markBroken();
    cells_.reset(stateOf(id, variant));
  }
}

// A change moves the entries of a hash map about, so the list at hand is finished before it.
void LiveMarks::beforeChange(NodeId id) try {
  while (big_.has_value() && idOf(big_->state) == id) followBig(std::numeric_limits<size_t>::max() / 2);
} catch (const std::bad_alloc&) {
  big_.reset();
  broken_ = true;
}

// ------------------------------------------------------------------------------------------------------------- steps

void LiveMarks::setNow(int64_t now) {
  if (now == now_) return;
  int64_t from = std::min(now, now_);
  int64_t to = std::max(now, now_);
  // What an earlier aim left over, too.
  if (recheck_.has_value()) {
    from = std::min(from, recheck_->from.first);
    to = std::max(to, recheck_->to);
  }
  now_ = now;
  recheck_ = Range{{from, 0}, to};
}

bool LiveMarks::step(size_t most) {
  if (big_.has_value()) followBig(std::min(most, kBigSlots));
  else if (!cells_.giveBack()) return false;
  else if (scan_ == Scan::kRoots) scan();
  else if (recheck_.has_value()) recheckExpiries(most);
  else if (!waiting_.empty()) reviveSome(most);
  else if (scan_ == Scan::kGarbage) scan();
  else if (!lost_.empty()) loseSome(most);
  else if (!suspects_.empty()) {
    uint32_t state = 0;
    suspects_.take(&state, 1);
    trialDelete(state);
  }
  return isUpToDate();
}

bool LiveMarks::revive(size_t steps) {
  for (size_t n = 0; n < steps && !revived(); n++) step();
  return revived();
}

// For roots; and once what they lead to has revived, for the garbage that is left.
void LiveMarks::scan() {
  const NodeId limit = graph_.limit();
  if (next_ >= limit) {
    scan_ = scan_ == Scan::kRoots ? Scan::kGarbage : Scan::kDone;
    next_ = 0;
  } else if (graph_.blockAt(next_ >> kBlockBits) == nullptr) {
    next_ = (next_ | kBlockMask) + 1;
  } else {
    graph_.forEach(next_, std::min(limit, next_ + kSegmentIds), [this](NodeId id) {
      if (scan_ == Scan::kGarbage) recount(id);
      else if ((graph_.flags(id) & kRoot) != 0) updateRoot(id);
    });
    next_ += kSegmentIds;
  }
}

void LiveMarks::recheckExpiries(size_t most) {
  auto at = expiring_.lower_bound(recheck_->from);
  for (size_t n = std::min(most, kExpiries); n > 0; n--) {
    if (at == expiring_.end() || at->first >= recheck_->to) {
      recheck_.reset();
      return;
    }
    const NodeId id = at->second;
    recheck_->from = {at->first, id + 1};
    ++at;
    updateRoot(id);
  }
}

// In passes, each of which brings into the cache what the next one needs: nodes, blocks of edges, counts of targets.
void LiveMarks::reviveSome(size_t most) {
  std::array<uint32_t, kBatch> batch;
  const size_t size = waiting_.take(batch.data(), std::min(most, kBatch));
  const NodeTable nodes = graph_.table();
  for (size_t i = 0; i < size; i++) nodes.prefetch(idOf(batch[i]));
  size_t count = 0;
  for (size_t i = 0; i < size; i++) {
    const uint32_t state = batch[i];
    cells_.clearFlag(state, LiveCells::kWaiting);
    if (cells_.count(state) == 0 || (cells_.flags(state) & LiveCells::kExpanded) != 0) continue;
    const Node& node = nodes.node(idOf(state));
    if (node.degree == kBigDegree) {
      if (big_.has_value()) {
        enlist(state, LiveCells::kWaiting, waiting_);
        continue;
      }
      big_ = BigCursor{state, 0, true};
    } else {
      graph_.edges().prefetch(node);
      batch[count++] = state;
    }
    setExpanded(state, true);
  }
  std::array<uint32_t, kBatch + kBigDegree> targets;
  size_t full = 0;
  const auto addAll = [&] {
    for (size_t i = 0; i < full; i++) add(targets[i], 1);
    full = 0;
  };
  for (size_t i = 0; i < count; i++) {
    forEachTarget(graph_.edges().small(nodes.node(idOf(batch[i]))), batch[i], [&](uint32_t target) {
      cells_.prefetch(target);
      targets[full++] = target;
    });
    if (full >= kBatch) addAll();
  }
  addAll();
}

void LiveMarks::loseSome(size_t most) {
  std::array<uint32_t, kBatch> batch;
  const size_t size = lost_.take(batch.data(), std::min(most, kBatch));
  const NodeTable nodes = graph_.table();
  for (size_t i = 0; i < size; i++) nodes.prefetch(idOf(batch[i]));
  for (size_t i = 0; i < size; i++) {
    const uint32_t state = batch[i];
    const uint32_t flags = cells_.flags(state);
    if (cells_.count(state) == 0 && (flags & LiveCells::kExpanded) != 0 && nodes.node(idOf(state)).degree == kBigDegree &&
        big_.has_value()) {
      lost_.push(state);
      continue;
    }
    cells_.clearFlag(state, LiveCells::kLost);
    if ((flags & LiveCells::kExpanded) == 0) continue;
    if (cells_.count(state) == 0) {
      die(state);
    } else if ((flags & (LiveCells::kRooted | LiveCells::kPinned | LiveCells::kSuspect)) == 0 && hasTargets(state)) {
      enlist(state, LiveCells::kSuspect, suspects_);
    }
  }
}

void LiveMarks::die(uint32_t state) {
  const Node& node = *graph_.find(idOf(state));
  setExpanded(state, false);
  if (fault_ == LiveFault::kNoCascade) return;
  if (node.degree == kBigDegree) big_ = BigCursor{state, 0, false};
  else forEachTarget(graph_.edges().small(node), state, [this](uint32_t target) { drop(target, 1); });
}

void LiveMarks::followBig(size_t slots) {
  const BigList* list = graph_.edges().big(*graph_.find(idOf(big_->state)));
  const size_t end = std::min(list->counts.capacity(), big_->slot + slots);
  for (; big_->slot < end; big_->slot++) {
    const auto& slot = list->counts.slot(big_->slot);
    if (slot.key == FlatMap<uint32_t>::kEmpty) continue;
    const uint32_t target = targetOf(big_->state, slot.key);
    if (target == kNowhere) continue;
    if (big_->adds) add(target, slot.value);
    else drop(target, slot.value);
  }
  if (end == list->counts.capacity()) big_.reset();
}

bool LiveMarks::hasTargets(uint32_t state) const {
  const Node& node = *graph_.find(idOf(state));
  if (node.degree == kBigDegree || !isFlat(state)) return node.degree > 0;
  const auto words = graph_.edges().small(node);
  return std::any_of(words.begin(), words.end(), [](uint32_t word) { return edgeKind(word) == kStructural; });
}

// ------------------------------------------------------------------------------------------------------------ cycles

// Trial deletion (Bacon and Rajan): what a state leads to, and how many counts of it come from within. What has others, and
// what that leads to, lives; the rest is kept by itself alone. Roots are left out: they live, and what they lead to has a
// count from outside.
void LiveMarks::trialDelete(uint32_t state) {
  cells_.clearFlag(state, LiveCells::kSuspect);
  constexpr uint32_t kKept = LiveCells::kRooted | LiveCells::kPinned;
  const auto mayDie = [&](uint32_t s) {
    return (cells_.flags(s) & (LiveCells::kExpanded | kKept)) == LiveCells::kExpanded;
  };
  if (!mayDie(state) || cells_.count(state) == 0 || fault_ == LiveFault::kNoTrial) return;

  FlatMap<uint32_t> within;
  std::vector<uint32_t> found = {state};
  within.at(state);
  size_t left = kTrialEdges;
  for (size_t i = 0; i < found.size(); i++) {
    const Node& node = *graph_.find(idOf(found[i]));
    const BigList* big = graph_.edges().big(node);
    const size_t edges = big == nullptr ? node.degree : big->counts.capacity();
    if (edges > left) {
      doubtful_ = true;
      return;
    }
    left -= edges;
    graph_.edges().forEach(node, [&](uint32_t word, uint32_t times) {
      const uint32_t target = targetOf(found[i], word);
      if (target == kNowhere || !mayDie(target)) return;
      if (within.find(target) == nullptr) found.push_back(target);
      within.at(target) += times;
    });
  }

  constexpr uint32_t kLives = 0xffffffff;
  std::vector<uint32_t> living;
  const auto live = [&](uint32_t s) {
    uint32_t* count = within.find(s);
    if (count == nullptr || *count == kLives) return;
    *count = kLives;
    living.push_back(s);
  };
  for (const uint32_t s : found) {
    if (cells_.count(s) > *within.find(s)) live(s);
  }
  while (!living.empty()) {
    const uint32_t s = living.back();
    living.pop_back();
    graph_.edges().forEach(*graph_.find(idOf(s)), [&](uint32_t word, uint32_t) {
      const uint32_t target = targetOf(s, word);
      if (target != kNowhere) live(target);
    });
  }
  // They lose one another, and are taken up from the list.
  for (const uint32_t s : found) {
    if (*within.find(s) == kLives) continue;
    setExpanded(s, false);
    graph_.edges().forEach(*graph_.find(idOf(s)), [&](uint32_t word, uint32_t times) {
      const uint32_t target = targetOf(s, word);
      if (target != kNowhere) drop(target, times);
    });
  }
}

size_t LiveMarks::bytes() const {
  const size_t words = waiting_.size() + lost_.size() + suspects_.size() + garbage_.size() + sifted_.size();
  // A node of the ordered set takes what it holds, and its links.
  constexpr size_t kExpiring = sizeof(std::pair<int64_t, NodeId>) + 4 * sizeof(void*);
  return cells_.bytes() + words * sizeof(uint32_t) + expiries_.bytes() + expiring_.size() * kExpiring;
}

// -------------------------------------------------------------------------------------------------------------- pins

void LiveMarks::pin(NodeId id) {
  const uint32_t state = stateOf(id, kPlain);
  if ((cells_.flags(state) & LiveCells::kPinned) != 0) return;
  pins_.push_back(id);
  cells_.setFlag(state, LiveCells::kPinned);
  add(state, 1);
}

void LiveMarks::unpin() {
  for (const NodeId id : pins_) {
    const uint32_t state = stateOf(id, kPlain);
    if ((cells_.flags(state) & LiveCells::kPinned) == 0) continue;
    cells_.clearFlag(state, LiveCells::kPinned);
    drop(state, 1);
  }
  pins_.clear();
}

}  // namespace ebbtide
