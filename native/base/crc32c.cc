// See crc32c.h.
#include "base/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace ebbtide {

namespace {

using Table = std::array<std::array<uint32_t, 256>, 8>;

// tables[k][b]: what byte b does to the checksum when k more bytes follow it.
constexpr Table kTables = [] {
  Table tables{};
  for (uint32_t b = 0; b < 256; b++) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    tables[0][b] = crc;
  }
  for (size_t k = 1; k < 8; k++) {
    for (uint32_t b = 0; b < 256; b++) tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xff];
  }
  return tables;
}();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc32cInstruction(const uint8_t* bytes, size_t length, uint32_t crc) {
  uint64_t c = ~crc;
  for (; length >= 8; bytes += 8, length -= 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    c = _mm_crc32_u64(c, word);
  }
  auto rest = static_cast<uint32_t>(c);
  for (; length > 0; bytes++, length--) rest = _mm_crc32_u8(rest, *bytes);
  return ~rest;
}
#endif

}  // namespace

uint32_t crc32cPortable(const uint8_t* bytes, size_t length, uint32_t crc) {
  uint32_t c = ~crc;
  for (; length >= 8; bytes += 8, length -= 8) {
    uint32_t next = 0;
    for (unsigned k = 0; k < 8; k++) {
      const uint32_t byte = k < 4 ? bytes[k] ^ (c >> (8 * k) & 0xff) : bytes[k];
      next ^= kTables[7 - k][byte];
    }
    c = next;
  }
  for (; length > 0; bytes++, length--) c = c >> 8 ^ kTables[0][(c ^ *bytes) & 0xff];
  return ~c;
}

uint32_t crc32c(const uint8_t* bytes, size_t length, uint32_t crc) {
#if defined(__x86_64__)
  static const bool instruction = __builtin_cpu_supports("sse4.2") != 0;
  if (instruction) return crc32cInstruction(bytes, length, crc);
#endif
  return crc32cPortable(bytes, length, crc);
}

}  // namespace ebbtide
