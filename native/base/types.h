// Types and constants of the graph core: ids, edges, flags, ops, limits. They mirror src/engine/contract.ts and
// src/engine/graph.ts; change them together.
//
// Threads: constants only. Units: ids are dense u32 numbers, times are nanoseconds since 1970 as i64.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace ebbtide {

using NodeId = uint32_t;

// Number of ids; the highest is one less. Leaves two bits of an edge word for the kind.
inline constexpr uint32_t kMaxNodes = (1u << 30) - 1;
// Keeps every section of a checkpoint within 32 bits.
inline constexpr uint64_t kMaxEdges = 1'000'000'000;
// A type is 31 at most; the three bits above it are the node's marks.
inline constexpr uint32_t kMaxFlags = 0x1fff;
// Limit on the ids that one call of unusedIds returns.
inline constexpr uint32_t kMaxUnused = 1u << 20;

enum EdgeKind : uint32_t { kLabel = 0, kStructural = 1, kFlatEdge = 2, kEdgeKinds = 3 };

// An edge in one word. Ascending words are ascending by target, then kind.
constexpr uint32_t edgeWord(NodeId to, uint32_t kind) { return to << 2 | kind; }
constexpr NodeId edgeTarget(uint32_t word) { return word >> 2; }
constexpr uint32_t edgeKind(uint32_t word) { return word & 3; }

enum NodeFlag : uint32_t {
  kPresent = 1,
  kRoot = 2,
  kExpires = 4,
  kCollectible = 8,
  kConditional = 16,
  kConditionValue = 32,
  kForeign = 64,
};
constexpr uint32_t typeOf(uint32_t flags) { return flags >> 8; }

enum MarkBit : uint32_t { kPlain = 1, kFlat = 2, kAllocatedBlack = 4 };
inline constexpr unsigned kMarkShift = 13;
inline constexpr uint32_t kReached = kPlain | kFlat;

enum GraphOp : uint32_t { kOpSet = 1, kOpFree = 2, kOpAdd = 3, kOpRemove = 4 };

// A caller's error. The addon turns it into a JavaScript error of this kind.
class GraphError : public std::runtime_error {
 public:
  GraphError(const char* kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  const char* kind() const { return kind_; }

 private:
  const char* kind_;
};

// The kind of a bad_alloc.
inline constexpr const char* kNoMemory = "ResourceExhausted";
inline GraphError invalidArgument(const std::string& message) { return {"InvalidArgument", message}; }
inline GraphError failedPrecondition(const std::string& message) { return {"FailedPrecondition", message}; }

}  // namespace ebbtide
