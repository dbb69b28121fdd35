// The graph core as a WebAssembly module: one instance is one graph. src/graph/wasm-graph.ts calls it, one function
// for each of src/engine/graph.ts, as native/addon.cc is called where an addon loads.
//
// Contract: operands of any length go through `input`; results of any length are at `resultAt`, until the next
// call. Functions that return bool can fail; `errorKind` and `errorMessage` then say how. The caller checks types
// and ranges of what it passes; a wrong value can damage this instance only.
//
// Threads: one. Jobs are done in steps by their caller, who may call anything else between two of them, and end
// with `…End`, which frees the job. Units: times are nanoseconds since 1970.
#include <cstring>
#include <memory>
#include <span>

#include "core.h"
#include "graph/path.h"

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

namespace ebbtide {
namespace {

std::shared_ptr<Core> core;
std::vector<uint64_t> input;
std::vector<uint8_t> result;
double value = 0;
const char* errorKind = "";
// Static: there may be no memory for a message about missing memory.
char errorMessage[256];

std::span<const uint32_t> inputWords(size_t from, size_t count) {
  return {reinterpret_cast<const uint32_t*>(input.data()) + from, count};
}

template <typename T>
void setResult(std::span<const T> values) {
  result.resize(values.size_bytes());
  if (!values.empty()) std::memcpy(result.data(), values.data(), values.size_bytes());
}

template <typename T>
void setResult(const std::vector<T>& values) {
  setResult(std::span<const T>(values));
}

bool failed(const char* kind, const char* message) {
  errorKind = kind;
  std::strncpy(errorMessage, message, sizeof(errorMessage) - 1);
  return false;
}

// Runs a body; returns false, with the error stored, when it throws.
template <typename Body>
bool guarded(Body body) {
  try {
    body();
    return true;
  } catch (const GraphError& error) {
    return failed(error.kind(), error.what());
  } catch (const std::bad_alloc&) {
    return failed(kNoMemory, "out of memory");
  } catch (const std::exception& error) {
    return failed("Unknown", error.what());
  }
}

// Creates a job; null when that throws.
template <typename Make>
auto newJob(Make make) -> decltype(make().release()) {
  decltype(make().release()) job = nullptr;
  guarded([&] { job = make().release(); });
  return job;
}

}  // namespace
}  // namespace ebbtide

using namespace ebbtide;

// Called once, before anything else.
EXPORT(begin) bool begin() {
  return guarded([] { core = std::make_shared<Core>(); });
}

// A buffer for this many bytes of operands; null when there is no memory.
EXPORT(input) void* inputOf(uint32_t bytes) {
  // A large buffer is not kept.
  if (input.size() > 1024) input = {};
  return guarded([&] { input.resize(size_t{bytes} / 8 + 1); }) ? input.data() : nullptr;
}
EXPORT(resultAt) const void* resultAt() { return result.data(); }
EXPORT(resultBytes) uint32_t resultBytes() { return static_cast<uint32_t>(result.size()); }
EXPORT(resultNumber) double resultNumber() { return value; }
EXPORT(errorKind) const char* errorKindAt() { return errorKind; }
EXPORT(errorMessage) const char* errorMessageAt() { return errorMessage; }

EXPORT(apply) bool apply(uint32_t count) {
  return guarded([&] { core->apply(inputWords(0, count)); });
}

// ------------------------------------------------------------------------------------------------------------ runs

EXPORT(isSmall) bool isSmall() { return core->isSmall(); }
EXPORT(markBegin) MarkJob* markBegin(int64_t now, uint32_t how) {
  return newJob([&] { return core->markAs(now, how); });
}
EXPORT(markStep) bool markStep(MarkJob* job, uint32_t nodes) { return job->step(nodes); }
// As many steps as fit into some hundred microseconds.
EXPORT(markSteps) bool markSteps(MarkJob* job) {
  for (int n = 0; n < 8; n++) {
    if (job->step(2048)) return true;
  }
  return false;
}
// Results: the counts by type; then, as doubles, nodes, edges and how it was done.
EXPORT(markEnd) bool markEnd(MarkJob* job) {
  const std::unique_ptr<MarkJob> mine(job);
  return guarded([&] {
    const MarkCounts counts = mine->result();
    const double sums[] = {static_cast<double>(counts.marked), static_cast<double>(counts.edgesFollowed),
                           static_cast<double>(counts.marking)};
    setResult(std::span<const uint32_t>(counts.byType));
    result.resize(result.size() + sizeof(sums));
    std::memcpy(result.data() + sizeof(counts.byType), sums, sizeof(sums));
  });
}
EXPORT(markFrom) bool markFrom(uint32_t count) {
  return guarded([&] { value = static_cast<double>(core->markFrom(inputWords(0, count))); });
}
EXPORT(marksOf) bool marksOf(NodeId id) {
  return guarded([&] { value = core->marksOf(id); });
}
EXPORT(places) bool places() {
  return guarded([] { value = static_cast<double>(core->places()); });
}
EXPORT(candidates) bool candidates(uint32_t from, uint32_t count) {
  return guarded([&] { setResult(core->candidates(from, count)); });
}
EXPORT(stillCandidates) bool stillCandidates(uint32_t count) {
  return guarded([&] { setResult(core->stillCandidates(inputWords(0, count))); });
}
EXPORT(bringUpToDate) bool bringUpToDate(uint32_t steps) {
  return guarded([&] { value = core->bringUpToDate(steps) ? 1 : 0; });
}
EXPORT(catchUp) bool catchUp(uint32_t steps) {
  return guarded([&] { value = core->catchUp(steps) ? 1 : 0; });
}
// Returns whether there are live marks, and those that are wrong.
EXPORT(wrongLive) bool wrongLive() {
  return guarded([&] {
    const auto wrong = core->wrongLive();
    value = wrong.has_value() ? 1 : 0;
    setResult(wrong.value_or(std::vector<NodeId>()));
  });
}
EXPORT(checkBegin) CheckJob* checkBegin() {
  return newJob([] { return core->checkLive(); });
}
EXPORT(checkStep) bool checkStep(CheckJob* job) {
  for (int n = 0; n < 8; n++) {
    if (job->step()) return true;
  }
  return false;
}
EXPORT(checkEnd) bool checkEnd(CheckJob* job) {
  const std::unique_ptr<CheckJob> mine(job);
  return guarded([&] {
    const auto wrong = mine->result();
    value = wrong.has_value() ? 1 : 0;
    setResult(wrong.value_or(std::vector<NodeId>()));
  });
}
EXPORT(garbageByType) bool garbageByType() {
  return guarded([] { setResult(std::span<const uint32_t>(core->garbageByType())); });
}
EXPORT(garbage) bool garbage(uint32_t from, uint32_t count) {
  return guarded([&] { setResult(core->garbage(from, count)); });
}
EXPORT(freshGarbage) bool freshGarbage() {
  return guarded([] { setResult(core->freshGarbage()); });
}
EXPORT(endRun) void endRun() { core->endRun(); }

// ----------------------------------------------------------------------------------------------------------- nodes

EXPORT(takeFreeable) bool takeFreeable() {
  return guarded([] { setResult(core->takeFreeable()); });
}
EXPORT(unusedIds) bool unusedIds(uint32_t from, uint32_t max) {
  return guarded([&] { setResult(core->graph().unused(from, max)); });
}
EXPORT(withFlags) bool withFlags(uint32_t flags) {
  return guarded([&] { setResult(core->graph().withFlags(flags)); });
}
EXPORT(flagsOf) uint32_t flagsOf(NodeId id) { return core->graph().flags(id); }
EXPORT(inDegreeOf) uint32_t inDegreeOf(NodeId id) { return std::min(core->graph().inDegree(id), 255u); }
// REQUIRES: the node's flags say that it expires.
EXPORT(expiryOf) int64_t expiryOf(NodeId id) { return core->graph().expiry(id).value_or(0); }
EXPORT(edgesOf) bool edgesOf(NodeId id) {
  return guarded([&] { setResult(core->graph().edgePairs(id)); });
}
EXPORT(rows) bool rows(uint32_t from, uint32_t count) {
  return guarded([&] { setResult(core->graph().rows(from, count)); });
}
EXPORT(path) bool path(NodeId id, int64_t now) {
  return guarded([&] { setResult(shortestPath(core->graph(), id, now)); });
}

// --------------------------------------------------------------------------------------------------------- reports

// A query and whether it is small. The operands are the sizes, then the words of the others.
struct RetainedCall {
  std::unique_ptr<RetainedJob> job;
  bool isSmall;
};
EXPORT(retainedBegin) RetainedCall* retainedBegin(int64_t now, uint32_t items, uint32_t sizes, uint32_t members, uint32_t ends,
                                              uint32_t roots, uint32_t edges) {
  return newJob([&] {
    size_t at = 0;
    const auto take = [&](uint32_t count) {
      at += count;
      return inputWords(at - count, count);
    };
    const auto bytes = take(2 * sizes);
    RetainedQuery query{now, {}, std::span(reinterpret_cast<const double*>(bytes.data()), sizes), {}, {}, {}, {}};
    query.itemOf = take(items);
    query.members = take(members);
    query.ends = take(ends);
    query.roots = take(roots);
    query.edges = take(edges);
    auto call = std::make_unique<RetainedCall>();
    call->isSmall = core->isSmall(query);
    call->job = core->retained(std::move(query));
    return call;
  });
}
EXPORT(retainedIsSmall) bool retainedIsSmall(const RetainedCall* call) { return call->isSmall; }
EXPORT(retainedStep) bool retainedStep(RetainedCall* call) { return call->job->step(); }
// Results, as doubles: kept; by set total, retained, reached.
EXPORT(retainedEnd) bool retainedEnd(RetainedCall* call) {
  const std::unique_ptr<RetainedCall> mine(call);
  return guarded([&] {
    const RetainedSums sums = mine->job->result();
    std::vector<double> all = {sums.kept};
    all.insert(all.end(), sums.total.begin(), sums.total.end());
    all.insert(all.end(), sums.retained.begin(), sums.retained.end());
    all.insert(all.end(), sums.reached.begin(), sums.reached.end());
    setResult(all);
  });
}

// For a caller that runs it elsewhere.
EXPORT(retainedDrop) void retainedDrop(RetainedCall* call) { delete call; }

// ------------------------------------------------------------------------------------------------------ checkpoints

EXPORT(saveBegin) SaveJob* saveBegin() {
  return newJob([] { return core->save(); });
}
EXPORT(saveStep) bool saveStep(SaveJob* job) { return job->step(); }
EXPORT(saveEnd) bool saveEnd(SaveJob* job) {
  const std::unique_ptr<SaveJob> mine(job);
  return guarded([&] { result = mine->result(); });
}
// Returns whether the bytes were a complete checkpoint.
EXPORT(load) bool load(uint32_t bytes) {
  return guarded([&] { value = core->load({reinterpret_cast<const uint8_t*>(input.data()), bytes}) ? 1 : 0; });
}

// Ends all jobs. The caller then drops the instance with its memory.
EXPORT(clear) void clear() { core->clear(); }
EXPORT(nodeCount) uint32_t nodeCount() { return core->graph().nodeCount(); }
EXPORT(edgeCount) double edgeCount() { return static_cast<double>(core->graph().edgeCount()); }
EXPORT(hasLive) bool hasLive() { return core->hasLive(); }
EXPORT(limit) uint32_t limit() { return core->graph().limit(); }
EXPORT(byteCount) double byteCount() { return static_cast<double>(core->bytes()); }
