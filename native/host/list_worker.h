// Work on a packed list that JavaScript passes as bytes, on a thread of libuv's pool; its result is a number for each entry.
//
// The list is read where JavaScript has it: the caller does not change it until the promise is settled.
#pragma once

#include <napi.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "host/sys.h"

namespace ebbtide::sys {

// Takes a list apart. Throws EINVAL where it ends early.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  bool atEnd() const { return rest_.empty(); }

  std::string_view bytes(size_t size) {
    if (size > rest_.size()) throw Errno{EINVAL};
    const std::string_view part = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return part;
  }

  template <typename T>
  T value() {
    T result;
    std::memcpy(&result, bytes(sizeof result).data(), sizeof result);
    return result;
  }

 private:
  std::string_view rest_;
};

class ListWorker : public Napi::AsyncWorker {
 public:
  ListWorker(Napi::Env env, Napi::Uint8Array list)
      : AsyncWorker(env), deferred_(env), held_(Napi::Persistent(list)),
        list_(reinterpret_cast<const char*>(list.Data()), list.ByteLength()) {}

  // The worker deletes itself when the promise is settled.
  Napi::Promise start() {
    const Napi::Promise promise = deferred_.Promise();
    Queue();
    return promise;
  }

  void Execute() override {
    Reader list(list_);
    try {
      run(list, outcomes_);
    } catch (const Errno&) {
      SetError("the list is malformed");
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnOK() override {
    Napi::Uint32Array outcomes = Napi::Uint32Array::New(Env(), outcomes_.size());
    std::copy(outcomes_.begin(), outcomes_.end(), outcomes.Data());
    deferred_.Resolve(outcomes);
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  virtual void run(Reader& list, std::vector<uint32_t>& outcomes) = 0;

  Napi::Promise::Deferred deferred_;
  // Keeps the bytes of `list_` alive.
  Napi::Reference<Napi::Uint8Array> held_;
  const std::string_view list_;
  std::vector<uint32_t> outcomes_;
};

inline Napi::Uint8Array listArgument(Info info, size_t i) {
  if (!info[i].IsTypedArray() || info[i].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) throw Errno{EINVAL};
  return info[i].As<Napi::Uint8Array>();
}

}  // namespace ebbtide::sys
