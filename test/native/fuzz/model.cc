// See model.h.
#include "model.h"

namespace ebbtide::fuzz {

namespace {

size_t lengthOf(uint32_t code) {
  if (code == 1) return 5;
  if (code == 2) return 2;
  return code == 3 || code == 4 ? 4 : 0;
}

double bytesOf(const States& states, const RetainedQuery& query) {
  std::set<uint32_t> items;
  for (const auto& [id, flat] : states) {
    if (id < query.itemOf.size() && query.itemOf[id] != RetainedQuery::kNoItem) items.insert(query.itemOf[id]);
  }
  double bytes = 0;
  for (const uint32_t item : items) bytes += query.sizes[item];
  return bytes;
}

}  // namespace

std::optional<Model> Model::after(std::span<const uint32_t> ops, std::set<NodeId>& allocated) const {
  Model next = *this;
  std::set<NodeId> appeared;
  while (!ops.empty()) {
    const size_t length = lengthOf(ops[0]);
    if (length == 0 || length > ops.size() || !next.take(ops.first(length), appeared)) return std::nullopt;
    ops = ops.subspan(length);
  }
  allocated.insert(appeared.begin(), appeared.end());
  return next;
}

bool Model::take(std::span<const uint32_t> op, std::set<NodeId>& allocated) {
  constexpr uint32_t kIds = (1u << 30) - 1;
  const NodeId a = op[1];
  if (a >= kIds) return false;
  if (op[0] == 1) {
    if (op[2] > 0x1fff) return false;
    if ((op[2] & kPresent) != 0 && (!nodes.contains(a) || (nodes[a].flags & kPresent) == 0)) allocated.insert(a);
    nodes[a] = {op[2], (op[2] & kExpires) != 0 ? static_cast<int64_t>(uint64_t{op[4]} << 32 | op[3]) : 0};
    return true;
  }
  if (op[0] == 2) {
    if (!isFreeable(a)) return false;
    nodes.erase(a);
    allocated.erase(a);
    return true;
  }
  if (op[2] >= kIds || op[3] > 2) return false;
  const ModelEdge edge{a, op[2], op[3]};
  if (op[0] == 3) {
    if (!nodes.contains(a) || !nodes.contains(op[2])) return false;
    edges[edge]++;
    edgeCount++;
    return true;
  }
  const auto found = edges.find(edge);
  if (found == edges.end()) return false;
  if (--found->second == 0) edges.erase(found);
  edgeCount--;
  return true;
}

bool Model::isRoot(NodeId id, int64_t now) const {
  const auto found = nodes.find(id);
  if (found == nodes.end() || (found->second.flags & kRoot) == 0) return false;
  return (found->second.flags & kExpires) == 0 || now <= found->second.expiry;
}

bool Model::isFreeable(NodeId id) const {
  const auto found = nodes.find(id);
  return found != nodes.end() && (found->second.flags & kPresent) == 0 && inDegree(id) == 0 && words(id, false).empty();
}

uint64_t Model::inDegree(NodeId id) const {
  uint64_t count = 0;
  for (const auto& [edge, times] : edges) count += std::get<1>(edge) == id ? times : 0;
  return count;
}

std::vector<uint32_t> Model::words(NodeId id, bool repeated) const {
  std::vector<uint32_t> words;
  for (auto edge = edges.lower_bound({id, 0, 0}); edge != edges.end() && std::get<0>(edge->first) == id; ++edge) {
    const uint32_t word = std::get<1>(edge->first) << 2 | std::get<2>(edge->first);
    words.insert(words.end(), repeated ? edge->second : 1, word);
  }
  return words;
}

States Model::reachable(int64_t now, const std::set<NodeId>& gone) const {
  States roots;
  for (const auto& [id, node] : nodes) {
    if (isRoot(id, now)) roots.insert({id, false});
  }
  return reachableFrom(std::move(roots), gone);
}

States Model::reachableFrom(States open, const std::set<NodeId>& gone) const {
  States seen;
  while (!open.empty()) {
    const auto state = *open.begin();
    open.erase(open.begin());
    if (gone.contains(state.first) || !seen.insert(state).second) continue;
    for (const uint32_t word : words(state.first, false)) {
      const uint32_t kind = word & 3;
      if (kind == kStructural) open.insert({word >> 2, state.second});
      else if (!state.second) open.insert({word >> 2, kind == kFlatEdge});
    }
  }
  return seen;
}

RetainedSums Model::retained(const RetainedQuery& query) const {
  RetainedSums sums;
  const States kept = reachable(query.now);
  sums.kept = bytesOf(kept, query);
  uint32_t start = 0;
  for (const uint32_t end : query.ends) {
    const std::set<NodeId> members(query.members.begin() + start, query.members.begin() + end);
    States from;
    std::set<NodeId> reached;
    for (const auto& state : kept) {
      if (!members.contains(state.first)) continue;
      from.insert(state);
      reached.insert(state.first);
    }
    sums.total.push_back(bytesOf(reachableFrom(from), query));
    sums.retained.push_back(sums.kept - bytesOf(reachable(query.now, members), query));
    sums.reached.push_back(static_cast<uint32_t>(reached.size()));
    start = end;
  }
  return sums;
}

}  // namespace ebbtide::fuzz
