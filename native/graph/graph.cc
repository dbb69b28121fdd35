// See graph.h for the contract and the threading rule.
#include "graph/graph.h"

#include <algorithm>

namespace ebbtide {

namespace {

GraphError badOp(size_t at, const std::string& why) {
  return invalidArgument("graph op at word " + std::to_string(at) + " " + why);
}

int64_t toInt64(uint32_t low, uint32_t high) {
  return static_cast<int64_t>(uint64_t{high} << 32 | low);
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- ops

size_t Graph::opLength(uint32_t code) {
  switch (code) {
    case kOpSet: return 5;
    case kOpFree: return 2;
    case kOpAdd:
    case kOpRemove: return 4;
    default: return 0;
  }
}

void Graph::apply(std::span<const uint32_t> ops) {
  std::vector<BeforeImage> before;
  const size_t freeable = freeable_.size();
  size_t at = 0;
  try {
    while (at < ops.size()) {
      const size_t length = opLength(ops[at]);
      if (length == 0 || length > ops.size() - at) throw badOp(at, "is cut short or unknown");
      // An op lists at most two ids; nothing may fail once it is in the graph.
      if (freeable_.capacity() - freeable_.size() < 2) freeable_.reserve(2 * freeable_.size() + 8);
      applyOne(ops.subspan(at, length), at, before);
      at += length;
    }
  } catch (...) {
    rollBack(ops, at, before);
    freeable_.resize(freeable);
    assertInvariants();
    throw;
  }
  assertInvariants();
}

void Graph::applyOne(std::span<const uint32_t> op, size_t at, std::vector<BeforeImage>& before) {
  const NodeId a = op[1];
  if (a >= kMaxNodes) throw badOp(at, "has a node id beyond the limit: " + std::to_string(a));
  if (op[0] == kOpSet) {
    if (op[2] > kMaxFlags) throw badOp(at, "has flags beyond 13 bits: " + std::to_string(op[2]));
    opSet(a, op[2], toInt64(op[3], op[4]), before);
    return;
  }
  if (op[0] == kOpFree) {
    if (!isFreeable(a)) throw badOp(at, "frees node " + std::to_string(a) + ", which is not free-able");
    changing(a);
    before.push_back(stateOf(a));
    free(a);
    return;
  }
  const NodeId b = op[2];
  const uint32_t kind = op[3];
  if (b >= kMaxNodes) throw badOp(at, "has a node id beyond the limit: " + std::to_string(b));
  if (kind >= kEdgeKinds) throw badOp(at, "has an unknown edge kind: " + std::to_string(kind));
  if (op[0] == kOpAdd) {
    for (const NodeId id : {a, b}) {
      if (!exists(id)) throw badOp(at, "names node " + std::to_string(id) + ", which does not exist");
    }
    if (edgeCount_ >= kMaxEdges) throw badOp(at, "would exceed the limit of edges");
    addEdge(a, b, kind);
  } else {
    if (!removeEdge(a, b, kind)) {
      throw badOp(at, "removes an edge that is not there: " + std::to_string(a) + " to " + std::to_string(b) +
                          ", kind " + std::to_string(kind));
    }
    addFreeable(a);
    if (a != b) addFreeable(b);
  }
}

void Graph::opSet(NodeId id, uint32_t flags, int64_t expiry, std::vector<BeforeImage>& before) {
  changing(id);
  const BeforeImage state = stateOf(id);
  before.push_back(state);
  const bool wasFreeable = isFreeable(id);
  try {
    set(id, flags, expiry);
  } catch (...) {
    before.pop_back();
    throw;
  }
  if ((flags & ~uint32_t{state.flags} & kPresent) != 0) nodeAt(id).setMarks(state.marks | allocationMark_);
  if (!wasFreeable) addFreeable(id);
}

// Undoes the ops before `end`, the last first. Out of memory here means that the graph cannot be had back at all;
// an empty one is honest, and its owner builds it again.
void Graph::rollBack(std::span<const uint32_t> ops, size_t end, std::vector<BeforeImage>& before) try {
  std::vector<size_t> starts;
  for (size_t at = 0; at < end; at += opLength(ops[at])) starts.push_back(at);
  for (size_t i = starts.size(); i-- > 0;) {
    const auto op = ops.subspan(starts[i], opLength(ops[starts[i]]));
    if (op[0] == kOpAdd) {
      removeEdge(op[1], op[2], op[3]);
    } else if (op[0] == kOpRemove) {
      addEdge(op[1], op[2], op[3]);
    } else {
      const BeforeImage state = before.back();
      before.pop_back();
      if (!state.existed) {
        free(op[1]);
      } else {
        set(op[1], state.flags, state.expiry);
        nodeAt(op[1]).setMarks(state.marks);
      }
    }
  }
} catch (const std::bad_alloc&) {
  clear();
}

Graph::BeforeImage Graph::stateOf(NodeId id) const {
  return {expiry(id).value_or(0), static_cast<uint16_t>(flags(id)), static_cast<uint8_t>(marks(id)), exists(id)};
}

// ------------------------------------------------------------------------------------------------ nodes and edges

Graph::Block& Graph::makeBlock(NodeId id) {
  const size_t i = id >> kBlockBits;
  if (i >= blocks_.size()) {
    bases_.resize(i + 1);
    blocks_.resize(i + 1);
  }
  if (blocks_[i] == nullptr) {
    // The first block serves small graphs too and stays in small pages.
    blocks_[i] = std::make_unique<Block>(i > 0);
    bases_[i] = blocks_[i]->nodes();
  }
  return *blocks_[i];
}

void Graph::set(NodeId id, uint32_t flags, int64_t expiry) {
  assertLocked();
  Block& block = makeBlock(id);
  Node& node = block.nodes()[id & kBlockMask];
  if ((flags & kExpires) != 0) expiries_.at(id) = expiry;
  setRare(id, node.flags(), flags);
  if ((flags & kExpires) == 0 && (node.flags() & kExpires) != 0) expiries_.erase(id);
  node.setFlags(flags);

  uint64_t& word = block.exists()[(id & kBlockMask) >> 6];
  const uint64_t bit = uint64_t{1} << (id & 63);
  if ((word & bit) != 0) return;
  word |= bit;
  block.used++;
  nodes_++;
  limit_ = std::max(limit_, id + 1);
}

// The block stays: a run or a damaged in-degree may still lead to the id.
void Graph::free(NodeId id) {
  Block& block = *blocks_[id >> kBlockBits];
  Node& node = block.nodes()[id & kBlockMask];
  if ((node.flags() & kExpires) != 0) expiries_.erase(id);
  setRare(id, node.flags(), 0);
  node = Node{};
  block.exists()[(id & kBlockMask) >> 6] &= ~(uint64_t{1} << (id & 63));
  block.used--;
  nodes_--;
  if (id + 1 == limit_) limit_ = limitBelow(id);
}

void Graph::addEdge(NodeId from, NodeId to, uint32_t kind) {
  changing(from);
  changing(to);
  Node& target = nodeAt(to);
  countIn(target, to);
  try {
    edges_.add(nodeAt(from), edgeWord(to, kind));
  } catch (...) {
    countOut(target, to);
    throw;
  }
  edgeCount_++;
}

bool Graph::removeEdge(NodeId from, NodeId to, uint32_t kind) {
  if (!exists(from) || !exists(to)) return false;
  changing(from);
  changing(to);
  if (!edges_.remove(nodeAt(from), edgeWord(to, kind))) return false;
  countOut(nodeAt(to), to);
  edgeCount_--;
  return true;
}

void Graph::countIn(Node& node, NodeId id) {
  if (node.inDegree < 254) {
    node.inDegree++;
  } else {
    uint32_t& wide = wideInDegrees_.at(id);
    wide = node.inDegree == 254 ? 255 : wide + 1;
    node.inDegree = 255;
  }
}

void Graph::countOut(Node& node, NodeId id) {
  if (node.inDegree < 255) {
    if (node.inDegree > 0) node.inDegree--;
    return;
  }
  uint32_t* wide = wideInDegrees_.find(id);
  if (wide != nullptr && --*wide > 254) return;
  wideInDegrees_.erase(id);
  node.inDegree = 254;
}

void Graph::setRare(NodeId id, uint32_t before, uint32_t after) {
  if (((before ^ after) & (kConditional | kConditionValue | kForeign)) == 0) return;
  for (size_t i = 0; i < kRare.size(); i++) {
    if ((after & kRare[i]) != 0) rare_[i].at(id);
    else if ((before & kRare[i]) != 0) rare_[i].erase(id);
  }
}

uint32_t Graph::limitBelow(NodeId id) const {
  for (size_t b = (id >> kBlockBits) + 1; b-- > 0;) {
    const Block* block = blockAt(b);
    if (block == nullptr) continue;
    const bool same = b == id >> kBlockBits;
    for (size_t w = same ? ((id & kBlockMask) >> 6) + 1 : kBlockWords; w-- > 0;) {
      const uint64_t word = block->exists()[w];
      if (word != 0) return static_cast<uint32_t>(b << kBlockBits | w << 6) + 64 - static_cast<uint32_t>(__builtin_clzll(word));
    }
  }
  return 0;
}

void Graph::loadNode(NodeId id, uint32_t flags, uint32_t inDegree, int64_t expiry) {
  set(id, flags, expiry);
  if (inDegree >= 255) wideInDegrees_.at(id) = inDegree;
  nodeAt(id).inDegree = static_cast<uint8_t>(std::min(inDegree, 255u));
}

// ------------------------------------------------------------------------------------------------------- questions

uint32_t Graph::inDegree(NodeId id) const {
  const Node* node = find(id);
  if (node == nullptr) return 0;
  if (node->inDegree < 255) return node->inDegree;
  const uint32_t* wide = wideInDegrees_.find(id);
  return wide == nullptr ? 255 : *wide;
}

std::optional<int64_t> Graph::expiry(NodeId id) const {
  if ((flags(id) & kExpires) == 0) return std::nullopt;
  const int64_t* found = expiries_.find(id);
  return found == nullptr ? std::nullopt : std::optional(*found);
}

bool Graph::isRoot(NodeId id, int64_t now) const {
  const uint32_t f = flags(id);
  if ((f & kRoot) == 0) return false;
  return (f & kExpires) == 0 || now <= expiry(id).value_or(now);
}

bool Graph::isFreeable(NodeId id) const {
  const Node* node = find(id);
  return node != nullptr && (node->bits() & kPresent) == 0 && node->inDegree == 0 && edges_.degree(*node) == 0 &&
         exists(id);
}

std::vector<NodeId> Graph::takeFreeable() {
  std::vector<NodeId> ids;
  ids.swap(freeable_);
  std::erase_if(ids, [this](NodeId id) { return !isFreeable(id); });
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

void Graph::listFreeable() {
  freeable_.clear();
  const NodeTable nodes = table();
  forEach(0, limit_, [&](NodeId id) {
    const Node& node = nodes.node(id);
    if ((node.bits() & kPresent) == 0 && node.inDegree == 0) addFreeable(id);
  });
}

std::vector<NodeId> Graph::unused(uint64_t from, uint64_t max) const {
  std::vector<NodeId> ids;
  max = std::min<uint64_t>(max, kMaxUnused);
  for (uint64_t id = from; id < limit_ && ids.size() < max; id++) {
    const Block* block = blockOf(static_cast<NodeId>(id));
    if (block != nullptr && block->used == kBlockIds) {
      id |= kBlockMask;
      continue;
    }
    if (block != nullptr && (id & 63) == 0 && ~block->exists()[(id & kBlockMask) >> 6] == 0) {
      id |= 63;
      continue;
    }
    if (!exists(static_cast<NodeId>(id))) ids.push_back(static_cast<NodeId>(id));
  }
  return ids;
}

std::vector<NodeId> Graph::withFlags(uint32_t wanted) const {
  std::vector<NodeId> ids;
  const auto take = [&](NodeId id) {
    if ((flags(id) & wanted) == wanted) ids.push_back(id);
  };
  for (size_t i = 0; i < kRare.size(); i++) {
    if ((wanted & kRare[i]) == 0) continue;
    rare_[i].forEach([&](NodeId id, Nothing) { take(id); });
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  const NodeTable nodes = table();
  forEach(0, limit_, [&](NodeId id) {
    if ((nodes.node(id).bits() & wanted) == wanted) ids.push_back(id);
  });
  return ids;
}

std::vector<uint32_t> Graph::edgePairs(NodeId id) const {
  std::vector<uint32_t> words;
  const Node* node = find(id);
  if (node != nullptr) edges_.sorted(*node, words);
  std::vector<uint32_t> pairs;
  pairs.reserve(2 * words.size());
  for (const uint32_t word : words) {
    pairs.push_back(edgeTarget(word));
    pairs.push_back(edgeKind(word));
  }
  return pairs;
}

std::vector<uint32_t> Graph::rows(uint64_t from, uint64_t count) const {
  std::vector<uint32_t> rows;
  if (from >= limit_) return rows;
  const NodeId end = static_cast<NodeId>(from + std::min<uint64_t>(count, limit_ - from));
  std::vector<uint32_t> words;
  for (NodeId id = static_cast<NodeId>(from); id < end; id++) {
    words.clear();
    const Node* node = find(id);
    if (node != nullptr) edges_.sorted(*node, words);
    rows.push_back(node == nullptr ? 0 : flags(id));
    rows.push_back(static_cast<uint32_t>(words.size()));
    rows.insert(rows.end(), words.begin(), words.end());
  }
  return rows;
}

size_t Graph::bytes() const {
  size_t total = edges_.bytes() + expiries_.bytes() + wideInDegrees_.bytes();
  for (const auto& block : blocks_) total += block == nullptr ? 0 : Block::kBytes;
  for (const auto& set : rare_) total += set.bytes();
  return total + freeable_.capacity() * sizeof(NodeId) + blocks_.capacity() * sizeof(void*);
}

void Graph::clear() {
  assertLocked();
  bases_.clear();
  blocks_.clear();
  edges_.clear();
  expiries_.clear();
  wideInDegrees_.clear();
  for (auto& set : rare_) set.clear();
  freeable_.clear();
  edgeCount_ = 0;
  clears_++;
  nodes_ = 0;
  limit_ = 0;
  afterLoad();
}

}  // namespace ebbtide
