// Steps on files, one after another, in one go on a thread of libuv's pool: an ingest and the commit of a small blob take a
// dozen of them each, and a change of threads between two steps costs more than most steps. src/backends/file-steps.ts
// writes the list, and has the same steps for hosts without this addon.
//
// The caller keeps the descriptors in the list open until the promise is settled. Paths are used as they are.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string_view>

#include "host/list_worker.h"

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
  int64_t seconds = nanos / kSecond;
  int64_t rest = nanos % kSecond;
  // Before 1970.
  if (rest < 0) {
    rest += kSecond;
    seconds--;
  }
  const timespec time{static_cast<time_t>(seconds), static_cast<long>(rest)};
  const timespec times[2] = {time, time};
  return futimens(descriptor, times) == 0 ? 0 : errno;
}

int errnoOf(int result) { return result == 0 ? 0 : errno; }

int make(const Step& step, const std::string& first, std::string_view second) {
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

// The outcomes are an errno for each step, up to the first that failed and was not optional.
class FileSteps : public ListWorker {
 public:
  using ListWorker::ListWorker;

 private:
  void run(Reader& list, std::vector<uint32_t>& outcomes) override {
    while (!list.atEnd()) {
      const Step step = list.value<Step>();
      const std::string first(list.bytes(step.first));
      const int number = make(step, first, list.bytes(step.second));
      outcomes.push_back(static_cast<uint32_t>(number));
      if (number != 0 && step.optional == 0) return;
    }
  }
};

Napi::Value fileStepsCall(Info info) {
  return returnErrno(info, [&]() -> Napi::Value { return (new FileSteps(info.Env(), listArgument(info, 0)))->start(); });
}

}  // namespace

void exportFileSteps(Napi::Env env, Napi::Object exports) { exports.Set("fileSteps", Napi::Function::New<fileStepsCall>(env)); }

}  // namespace ebbtide::sys
