// What a fuzz target is: it takes any bytes and aborts when something is wrong, and it knows some inputs to begin with.
// libFuzzer drives it with coverage (npm run fuzz), replay.cc without (npm run test:sanitize).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace ebbtide::fuzz {

using Bytes = std::vector<uint8_t>;
using Words = std::vector<uint32_t>;

std::vector<Bytes> seeds();

// What fuzzers and sanitizers count as a find.
#define MUST(condition)                                                     \
  do {                                                                      \
    if (!(condition)) {                                                     \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);  \
      std::abort();                                                         \
    }                                                                       \
  } while (0)

inline Bytes savedNow(Core& core) {
  const auto job = core.save();
  job->work();
  return job->result();
}

inline void append(Words& ops, std::initializer_list<uint32_t> op) { ops.insert(ops.end(), op); }

inline void appendSet(Words& ops, NodeId id, uint32_t flags, int64_t expiry = 0) {
  append(ops, {kOpSet, id, flags, static_cast<uint32_t>(expiry), static_cast<uint32_t>(expiry >> 32)});
}

}  // namespace ebbtide::fuzz
