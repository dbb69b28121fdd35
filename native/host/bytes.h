// The bytes of a Uint8Array, in place, for calls that decode from one buffer into another. Used by gzip.cc and zstd.cc.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>

namespace ebbtide {

struct Bytes {
  uint8_t* data = nullptr;
  size_t length = 0;
};

// False for anything but a Uint8Array.
inline bool bytesOf(const Napi::Value& value, Bytes& bytes) {
  napi_typedarray_type type = napi_int8_array;
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(value.Env(), value, &type, &bytes.length, &data, &buffer, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    return false;
  }
  bytes.data = static_cast<uint8_t*>(data);
  return true;
}

}  // namespace ebbtide
