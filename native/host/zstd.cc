// Zstandard decoding by the system's libzstd, opened when this addon loads: libzstd.so.1 is installed wherever
// dpkg, rpm or systemd are, its headers rarely. Wrapped by src/backends/archive/compression/zstd-native.ts, which
// splits frames and blocks and knows their limits.
//
// Contract: `version` is the library's ("1.5.4"), or empty with the reason in `error`. A Decoder takes the blocks
// of one frame after another; `decode(input, output)` returns a promise of the number of bytes written to `output`,
// which has room for all that the input decompresses to, and rejects with the library's own message. One call at a
// time; a decoder that failed can only restart with a frame's header. Neither buffer may change until the promise
// is settled.
//
// Threads: any JavaScript thread; decoding runs on libuv's pool. Memory: a frame's window, at most 2^windowLogMax
// bytes, and two blocks; freed with the decoder, or by `close()`.
#include <dlfcn.h>
#include <napi.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "host/bytes.h"

// The versions of these symbols since the beginning; those of glibc 2.34 would keep the addon from loading on older
// hosts.
#if defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))
#if defined(__x86_64__)
#define FIRST_GLIBC "GLIBC_2.2.5"
#else
#define FIRST_GLIBC "GLIBC_2.17"
#endif
__asm__(".symver dlopen,dlopen@" FIRST_GLIBC);
__asm__(".symver dlsym,dlsym@" FIRST_GLIBC);
__asm__(".symver dlclose,dlclose@" FIRST_GLIBC);
__asm__(".symver dlerror,dlerror@" FIRST_GLIBC);
#endif

using ebbtide::Bytes;
using ebbtide::bytesOf;

namespace {

// The stable part of zstd.h (1.4.0 and later), as far as it is used here.
struct InBuffer {
  const void* src;
  size_t size;
  size_t pos;
};
struct OutBuffer {
  void* dst;
  size_t size;
  size_t pos;
};
constexpr int kWindowLogMax = 100;   // ZSTD_d_windowLogMax
constexpr int kResetSession = 1;     // ZSTD_reset_session_only
constexpr unsigned kOldest = 10400;  // 1.4.0

struct Library {
  void* (*createDCtx)() = nullptr;
  size_t (*freeDCtx)(void*) = nullptr;
  size_t (*setParameter)(void*, int, int) = nullptr;
  size_t (*reset)(void*, int) = nullptr;
  size_t (*decompressStream)(void*, OutBuffer*, InBuffer*) = nullptr;
  unsigned (*isError)(size_t) = nullptr;
  const char* (*getErrorName)(size_t) = nullptr;
  unsigned (*versionNumber)() = nullptr;
  const char* (*versionString)() = nullptr;
  std::string error;

  Library() {
    void* handle = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      const char* why = dlerror();
      error = why != nullptr ? why : "libzstd.so.1 cannot be opened";
      return;
    }
    find(handle, "ZSTD_createDCtx", createDCtx);
    find(handle, "ZSTD_freeDCtx", freeDCtx);
    find(handle, "ZSTD_DCtx_setParameter", setParameter);
    find(handle, "ZSTD_DCtx_reset", reset);
    find(handle, "ZSTD_decompressStream", decompressStream);
    find(handle, "ZSTD_isError", isError);
    find(handle, "ZSTD_getErrorName", getErrorName);
    find(handle, "ZSTD_versionNumber", versionNumber);
    find(handle, "ZSTD_versionString", versionString);
    if (error.empty() && versionNumber() < kOldest) error = std::string("libzstd ") + versionString() + " is older than 1.4.0";
    if (!error.empty()) dlclose(handle);
  }

  template <typename Function>
  void find(void* handle, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(handle, name));
    if (function == nullptr && error.empty()) error = std::string("libzstd.so.1 lacks ") + name;
  }
};

// One per process, never closed.
const Library& library() {
  static const Library* const loaded = new Library();
  return *loaded;
}

struct FreeContext {
  void operator()(void* context) const { library().freeDCtx(context); }
};
using Context = std::unique_ptr<void, FreeContext>;

struct Result {
  size_t written = 0;
  bool frameEnds = false;
  std::string error;
};

Result decode(void* context, InBuffer in, OutBuffer out) {
  const Library& zstd = library();
  Result result;
  size_t hint = 1;
  while (in.pos < in.size) {
    const size_t before = in.pos + out.pos;
    hint = zstd.decompressStream(context, &out, &in);
    if (zstd.isError(hint) != 0) result.error = zstd.getErrorName(hint);
    else if (in.pos + out.pos == before) result.error = "a block unfolds to more than its frame allows";
    if (!result.error.empty()) {
      zstd.reset(context, kResetSession);
      return result;
    }
  }
  result.written = out.pos;
  result.frameEnds = hint == 0;
  return result;
}

class Decoder : public Napi::ObjectWrap<Decoder> {
 public:
  explicit Decoder(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Decoder>(info) {
    double windowLogMax = 0;
    if (!library().error.empty() || napi_get_value_double(info.Env(), info[0], &windowLogMax) != napi_ok ||
        !(windowLogMax >= 10 && windowLogMax <= 31)) {
      Napi::TypeError::New(info.Env(), "Decoder needs libzstd and a window of 2^10 to 2^31 bytes").ThrowAsJavaScriptException();
      return;
    }
    context_.reset(library().createDCtx());
    if (context_ == nullptr ||
        library().isError(library().setParameter(context_.get(), kWindowLogMax, static_cast<int>(windowLogMax))) != 0) {
      Napi::Error::New(info.Env(), "libzstd could not make a decoder").ThrowAsJavaScriptException();
    }
  }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Decoder",
                       {InstanceMethod<&Decoder::decodeCall>("decode"), InstanceMethod<&Decoder::closeCall>("close"),
                        InstanceAccessor<&Decoder::frameEnds>("frameEnds")});
  }

 private:
  class Work;

  Napi::Value decodeCall(const Napi::CallbackInfo& info);

  Napi::Value closeCall(const Napi::CallbackInfo& info) {
    closed_ = true;
    if (!busy_) context_.reset();
    return info.Env().Undefined();
  }

  // Whether the last block decoded was its frame's last.
  Napi::Value frameEnds(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), frameEnds_); }

  Context context_;
  bool busy_ = false;
  bool closed_ = false;
  bool frameEnds_ = false;
};

// Keeps the decoder and both buffers alive until it is done.
class Decoder::Work : public Napi::AsyncWorker {
 public:
  Work(Napi::Env env, Decoder* decoder, Napi::Object input, Napi::Object output, Bytes in, Bytes out)
      : Napi::AsyncWorker(env), deferred_(env), decoder_(decoder), in_{in.data, in.length, 0}, out_{out.data, out.length, 0} {
    held_ = Napi::Persistent(Napi::Object::New(env));
    held_.Set("decoder", decoder->Value());
    held_.Set("input", input);
    held_.Set("output", output);
    decoder_->busy_ = true;
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override { result_ = decode(decoder_->context_.get(), in_, out_); }

  void OnOK() override {
    decoder_->busy_ = false;
    if (decoder_->closed_) decoder_->context_.reset();
    decoder_->frameEnds_ = result_.frameEnds;
    if (result_.error.empty()) deferred_.Resolve(Napi::Number::New(Env(), static_cast<double>(result_.written)));
    else deferred_.Reject(Napi::Error::New(Env(), result_.error).Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference held_;
  Decoder* decoder_;
  InBuffer in_;
  OutBuffer out_;
  Result result_;
};

Napi::Value Decoder::decodeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Bytes in;
  Bytes out;
  if (!bytesOf(info[0], in) || !bytesOf(info[1], out) || busy_ || closed_ || context_ == nullptr) {
    Napi::TypeError::New(env, "decode takes two Uint8Arrays, of an open decoder, one call at a time").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  // The queue owns it and frees it after OnOK.
  auto* work = new Work(env, this, info[0].As<Napi::Object>(), info[1].As<Napi::Object>(), in, out);
  const Napi::Promise promise = work->promise();
  work->Queue();
  return promise;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  const Library& zstd = library();
  exports.Set("error", Napi::String::New(env, zstd.error));
  exports.Set("version", Napi::String::New(env, zstd.error.empty() ? zstd.versionString() : ""));
  exports.Set("Decoder", Decoder::define(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(ebbtide_zstd, initialize)
