// CRC-32C (Castagnoli), with the processor's instruction where there is one. Pure; any thread. Some gigabytes a second.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ebbtide {

// Continues `crc` (0 to begin) over the bytes.
uint32_t crc32c(const uint8_t* bytes, size_t length, uint32_t crc = 0);
// The same without the instruction; for tests.
uint32_t crc32cPortable(const uint8_t* bytes, size_t length, uint32_t crc = 0);

}  // namespace ebbtide
