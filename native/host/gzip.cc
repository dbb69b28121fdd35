// Gzip decoding by the zlib that Node brings for its own module `zlib`, without a stream of Node's around it: output goes into
// buffers that are used again. Wrapped by src/backends/archive/compression/gzip.ts.
//
// Contract: `Gunzip` is undefined in a Node without zlib's symbols. `run(input, output)` returns a promise of the number of bytes
// written to `output`, and rejects with zlib's message. `consumed` is what the last call took of its input: all of it, unless
// `output` is full or nothing more can follow. Members follow each other; after a NUL, which only pads, nothing does. `ended`: a member
// is complete and none has begun. One call at a time; a decoder that failed is of no use. Neither buffer may change until the promise
// is settled.
//
// Threads: any JavaScript thread; decoding runs on libuv's pool. Memory: 40 KiB of zlib, freed with the decoder or by `close()`.
#include <cstdint>
#include <memory>
#include <string>

#include "host/bytes.h"
#include "host/sys.h"

namespace ebbtide::sys {
namespace {

// zlib.h, as far as it is used here: it has been so since 1.2.0.
struct ZStream {
  const uint8_t* next_in;
  unsigned avail_in;
  unsigned long total_in;
  uint8_t* next_out;
  unsigned avail_out;
  unsigned long total_out;
  const char* msg;
  void* state;
  void* (*zalloc)(void*, unsigned, unsigned);
  void (*zfree)(void*, void*);
  void* opaque;
  int data_type;
  unsigned long adler;
  unsigned long reserved;
};
constexpr int kNoFlush = 0;
constexpr int kOk = 0;
constexpr int kStreamEnd = 1;
constexpr int kBufError = -5;
// A gzip header, and any window.
constexpr int kWindowBits = 15 + 16;

// Of the process: null when it has none.
extern "C" {
__attribute__((weak)) int inflateInit2_(ZStream*, int, const char*, int);
__attribute__((weak)) int inflate(ZStream*, int);
__attribute__((weak)) int inflateReset(ZStream*);
__attribute__((weak)) int inflateEnd(ZStream*);
}

bool isThere() { return inflateInit2_ != nullptr && inflate != nullptr && inflateReset != nullptr && inflateEnd != nullptr; }

class Decoder {
 public:
  Decoder() {
    if (inflateInit2_(&stream_, kWindowBits, "1", sizeof stream_) != kOk) throw std::bad_alloc();
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() { inflateEnd(&stream_); }

  // Returns the bytes written. Throws zlib's message.
  size_t run(Bytes in, Bytes out) {
    stream_.next_in = in.data;
    stream_.avail_in = static_cast<unsigned>(in.length);
    stream_.next_out = out.data;
    stream_.avail_out = static_cast<unsigned>(out.length);
    while (begin()) {
      const int result = inflate(&stream_, kNoFlush);
      ended_ = result == kStreamEnd;
      if (result != kOk && result != kStreamEnd && result != kBufError)
        throw std::string(stream_.msg != nullptr ? stream_.msg : "zlib cannot go on");
      if (!ended_) break;
    }
    consumed_ = in.length - stream_.avail_in;
    return out.length - stream_.avail_out;
  }

  size_t consumed() const { return consumed_; }
  bool ended() const { return ended_; }

 private:
  // Whether there is something to decode.
  bool begin() {
    if (!ended_) return true;
    if (stream_.avail_in == 0) return false;
    if (*stream_.next_in == 0) padding_ = true;
    if (padding_) {
      stream_.avail_in = 0;
      return false;
    }
    ended_ = false;
    return inflateReset(&stream_) == kOk;
  }

  ZStream stream_{};
  size_t consumed_ = 0;
  bool ended_ = false;
  bool padding_ = false;
};

class Gunzip : public Napi::ObjectWrap<Gunzip> {
 public:
  explicit Gunzip(Info info) : Napi::ObjectWrap<Gunzip>(info) {
    try {
      decoder_ = std::make_unique<Decoder>();
    } catch (const std::bad_alloc&) {
      Napi::Error::New(info.Env(), "there is no memory for a decoder").ThrowAsJavaScriptException();
    }
  }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Gunzip",
                       {InstanceMethod<&Gunzip::runCall>("run"), InstanceMethod<&Gunzip::closeCall>("close"),
                        InstanceAccessor<&Gunzip::consumed>("consumed"), InstanceAccessor<&Gunzip::ended>("ended")});
  }

 private:
  class Work;

  Napi::Value runCall(Info info);

  Napi::Value closeCall(Info info) {
    closed_ = true;
    if (!busy_) decoder_.reset();
    return info.Env().Undefined();
  }

  Napi::Value consumed(Info info) { return Napi::Number::New(info.Env(), decoder_ ? static_cast<double>(decoder_->consumed()) : 0); }
  Napi::Value ended(Info info) { return Napi::Boolean::New(info.Env(), decoder_ && decoder_->ended()); }

  std::unique_ptr<Decoder> decoder_;
  bool busy_ = false;
  bool closed_ = false;
};

// Keeps the decoder and both buffers alive until it is done.
class Gunzip::Work : public Napi::AsyncWorker {
 public:
  Work(Info info, Gunzip* owner, Bytes in, Bytes out)
      : AsyncWorker(info.Env()), deferred_(info.Env()), owner_(owner), in_(in), out_(out) {
    const Napi::Array held = Napi::Array::New(info.Env(), 3);
    held.Set(0u, owner->Value());
    held.Set(1u, info[0]);
    held.Set(2u, info[1]);
    held_ = Napi::Persistent(held.As<Napi::Object>());
    owner_->busy_ = true;
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      written_ = owner_->decoder_->run(in_, out_);
    } catch (const std::string& message) {
      error_ = message;
    }
  }

  void OnOK() override {
    owner_->busy_ = false;
    if (owner_->closed_) owner_->decoder_.reset();
    if (error_.empty()) deferred_.Resolve(Napi::Number::New(Env(), static_cast<double>(written_)));
    else deferred_.Reject(Napi::Error::New(Env(), error_).Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference held_;
  Gunzip* const owner_;
  const Bytes in_;
  const Bytes out_;
  size_t written_ = 0;
  std::string error_;
};

Napi::Value Gunzip::runCall(Info info) {
  Bytes in;
  Bytes out;
  if (!bytesOf(info[0], in) || !bytesOf(info[1], out) || in.length > UINT32_MAX || out.length > UINT32_MAX || busy_ || closed_) {
    Napi::TypeError::New(info.Env(), "run takes two Uint8Arrays of less than 4 GiB, of an open decoder, one call at a time").ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  // The queue owns it and frees it after OnOK.
  auto* work = new Work(info, this, in, out);
  const Napi::Promise promise = work->promise();
  work->Queue();
  return promise;
}

}  // namespace

void exportGzip(Napi::Env env, Napi::Object exports) {
  if (isThere()) exports.Set("Gunzip", Gunzip::define(env));
}

}  // namespace ebbtide::sys
