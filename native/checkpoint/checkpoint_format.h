// Constants of the checkpoint's layout (described in checkpoint.h), shared by its writer and its reader. Pure.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "base/types.h"

namespace ebbtide::format {

static_assert(std::endian::native == std::endian::little, "columns are copied as they are");

inline constexpr uint32_t kMagic = 0x47424245;  // "EBBG"
inline constexpr uint32_t kVersion = 2;
inline constexpr uint32_t kVersionWithoutMarks = 1;
inline constexpr size_t kHeaderBytes = 44;
inline constexpr size_t kFrameBytes = 12;
inline constexpr size_t kPartBytes = 24;
inline constexpr uint32_t kFrameIds = 65'536;
inline constexpr uint32_t kNoDictionary = 0xffff;
inline constexpr uint32_t kMaxDictionary = 255;
inline constexpr uint32_t kIdMask = (1u << 30) - 1;

// The distance from `from`, wrapped to 30 bits and zigzagged, with the kind in the low bits: small for neighbours.
constexpr uint32_t packEdge(NodeId from, uint32_t word) {
  const auto distance = static_cast<int32_t>((edgeTarget(word) - from) << 2) >> 2;
  const uint32_t zigzag = (static_cast<uint32_t>(distance) << 1 ^ static_cast<uint32_t>(distance >> 29)) & kIdMask;
  return zigzag << 2 | edgeKind(word);
}

constexpr uint32_t unpackEdge(NodeId from, uint32_t packed) {
  const uint32_t zigzag = packed >> 2;
  const uint32_t distance = zigzag >> 1 ^ (0u - (zigzag & 1));
  return edgeWord((from + distance) & kIdMask, packed & 3);
}

template <typename T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

}  // namespace ebbtide::format
