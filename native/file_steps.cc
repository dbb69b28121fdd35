// Steps on files, one after another, in one go on a thread of libuv's pool: an ingest and the commit of a small blob take a
// dozen of them each, and a change of threads between two steps costs more than most steps. src/backends/file-steps.ts
// writes the list, and has the same steps for hosts without this addon.
//
// The list is read where JavaScript has it; the caller does not change it, and keeps the descriptors in it open, until the
// promise is settled. Paths are used as they are.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "sys.h"

namespace ebbtide::sys {
namespace {

enum class Kind : uint32_t { makeDirectory, write, absent, rename, syncFile, syncDirectory, mode, times };

// A step in the list, in the machine's byte order, then the bytes of `first` and `second`.
struct Step {
  Kind kind;
  // It may fail; the next one follows.
  uint32_t optional;
  // Of an open file (syncFile, mode, times).
  uint32_t descriptor;
  uint32_t mode;
  // Sizes of the path, and of the second path or the content.
  uint32_t first;
  uint32_t second;
  // Nanoseconds since 1970 (times).
  int64_t time;
};
static_assert(sizeof(Step) == 32);

// Returns an errno.
int writeFile(const std::string& path, std::string_view content, mode_t mode) {
  const Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (file.get() < 0) return errno;
  while (!content.empty()) {
    const ssize_t written = write(file.get(), content.data(), content.size());
    if (written < 0 && errno != EINTR) return errno;
    if (written > 0) content.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

int look(const std::string& path) {
  struct stat found;
  if (statAt(AT_FDCWD, path.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0) return EEXIST;
  return errno == ENOENT ? 0 : errno;
}

// File systems that have no such call are taken for durable.
int syncDirectory(const std::string& path) {
  const Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return errno;
  return fsync(directory.get()) == 0 || errno == EINVAL ? 0 : errno;
}

int setTimes(int descriptor, int64_t nanos) {
  constexpr int64_t kSecond = 1'000'000'000;
  const timespec time{static_cast<time_t>(nanos / kSecond), static_cast<long>(nanos % kSecond)};
  const timespec times[2] = {time, time};
  return futimens(descriptor, times) == 0 ? 0 : errno;
}

int errnoOf(int result) { return result == 0 ? 0 : errno; }

int run(const Step& step, const std::string& first, std::string_view second) {
  const int descriptor = static_cast<int>(step.descriptor);
  switch (step.kind) {
    case Kind::makeDirectory: return errnoOf(mkdir(first.c_str(), step.mode));
    case Kind::write: return writeFile(first, second, step.mode);
    case Kind::absent: return look(first);
    case Kind::rename: return errnoOf(std::rename(first.c_str(), std::string(second).c_str()));
    case Kind::syncFile: return errnoOf(fsync(descriptor));
    case Kind::syncDirectory: return syncDirectory(first);
    case Kind::mode: return errnoOf(fchmod(descriptor, step.mode));
    case Kind::times: return setTimes(descriptor, step.time);
  }
  return EINVAL;
}

class FileSteps : public Napi::AsyncWorker {
 public:
  FileSteps(Napi::Env env, Napi::Uint8Array list)
      : AsyncWorker(env), deferred_(env), held_(Napi::Persistent(list)),
        rest_(reinterpret_cast<const char*>(list.Data()), list.ByteLength()) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      while (!rest_.empty()) {
        Step step;
        std::memcpy(&step, bytes(sizeof step).data(), sizeof step);
        const std::string first(bytes(step.first));
        const int number = run(step, first, bytes(step.second));
        outcomes_.push_back(static_cast<uint32_t>(number));
        if (number != 0 && step.optional == 0) return;
      }
    } catch (const Errno&) {
      SetError("the list of steps is malformed");
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  // The errno of each step, up to the first that failed and was not optional.
  void OnOK() override {
    Napi::Uint32Array outcomes = Napi::Uint32Array::New(Env(), outcomes_.size());
    std::copy(outcomes_.begin(), outcomes_.end(), outcomes.Data());
    deferred_.Resolve(outcomes);
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  std::string_view bytes(size_t size) {
    if (size > rest_.size()) throw Errno{EINVAL};
    const std::string_view part = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return part;
  }

  Napi::Promise::Deferred deferred_;
  // Keeps the bytes of `rest_` alive.
  Napi::Reference<Napi::Uint8Array> held_;
  std::string_view rest_;
  std::vector<uint32_t> outcomes_;
};

Napi::Value fileStepsCall(Info info) {
  return returnErrno(info, [&]() -> Napi::Value {
    if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) throw Errno{EINVAL};
    auto* worker = new FileSteps(info.Env(), info[0].As<Napi::Uint8Array>());
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  });
}

}  // namespace

void exportFileSteps(Napi::Env env, Napi::Object exports) { exports.Set("fileSteps", Napi::Function::New<fileStepsCall>(env)); }

}  // namespace ebbtide::sys
