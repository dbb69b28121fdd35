// Files below an open directory: reached step by step, never through a symlink. `openBeneath` is openat2(2), with a
// loop of openat(2) where the kernel (before 5.6) or a seccomp filter does not allow it. `makeFiles` creates many
// small files, complete, in one call: a layer of a hundred thousand files would otherwise be a million calls from
// JavaScript. `firstNoDirectory` checks all directories below a snapshot at once: there may be hundreds.
// `syncFileSystem` flushes once for a copy of many files. `readNow` reads what needs no disk.
//
// Threads: `openBeneath` and `readNow` run on the caller's, the others on a thread of libuv's pool. Descriptors are
// close-on-exec; the caller owns the one that `openBeneath` returns, and keeps the directory that it passes to
// `makeFiles` open until that resolves.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "host/bytes.h"
#include "host/list_worker.h"
#include "host/sys.h"

namespace ebbtide::sys {
namespace {

// ------------------------------------------------------------------------------------------------------ openBeneath

constexpr int DIRECTORY = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

// Returns a descriptor or a negative errno.
int openStepwise(int directory, const std::string& path, int flags) {
  Descriptor at;
  for (size_t begin = 0;;) {
    const size_t slash = path.find('/', begin);
    const bool last = slash == std::string::npos;
    const std::string name = path.substr(begin, last ? slash : slash - begin);
    if (name.empty() || name == "..") return -EINVAL;
    const int from = at.get() < 0 ? directory : at.get();
    const int fd = openat(from, name.c_str(), last ? flags | O_NOFOLLOW | O_CLOEXEC : DIRECTORY);
    if (fd < 0) return -errno;
    at.reset(fd);
    if (last) return at.release();
    begin = slash + 1;
  }
}

}  // namespace

int openBelow(int directory, const std::string& path, int flags) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  // EAGAIN: something was renamed during the walk.
  for (int attempt = 0; attempt < 8; attempt++) {
    const long fd = syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how);
    if (fd >= 0) return static_cast<int>(fd);
    if (errno == ENOSYS || errno == EPERM) break;
    if (errno != EAGAIN) return -errno;
  }
  return openStepwise(directory, path, flags);
}

namespace {

Napi::Value openBeneathCall(Info info) {
  return returnErrno(info, [&] {
    const int directory = numberArgument<int>(info, 0);
    const std::string path = bytesArgument(info, 1);
    if (path.empty() || path.front() == '/') throw Errno{-EINVAL};
    return Napi::Number::New(info.Env(), openBelow(directory, path, numberArgument<int>(info, 2)));
  });
}

// -------------------------------------------------------------------------------------------------------- makeFiles

// One file in the packed list that JavaScript passes: this head, in the machine's byte order, then the bytes of the
// directory's path below the root ('.' is the root itself), the name, the attributes and the content. Attributes:
// length of the name, of the value (32 bits each), name, value; repeated. src/backends/archive/small-files.ts
// writes it.
struct Head {
  uint32_t directory;
  uint32_t name;
  uint32_t attributes;
  uint32_t content;
  uint32_t mode;
  uint32_t owned;
  uint32_t uid;
  uint32_t gid;
  int64_t atimeSeconds;
  int64_t mtimeSeconds;
  uint32_t atimeNanos;
  uint32_t mtimeNanos;
};
static_assert(sizeof(Head) == 56);

// The outcome for a file: an errno in the low 16 bits, and what this user was not allowed to set.
constexpr uint32_t OWNER_SKIPPED = 1U << 16;
constexpr uint32_t ATTRIBUTES_SKIPPED = 1U << 17;

bool isNotPermitted(int number) {
  return number == EPERM || number == EACCES || number == EINVAL || number == ENOTSUP || number == ENOSYS;
}

class FileMaker {
 public:
  explicit FileMaker(int root) : root_(root) {}

  // Creates the next file of the list; returns its outcome.
  uint32_t make(Reader& list) {
    const Head head = list.value<Head>();
    const std::string_view directory = list.bytes(head.directory);
    const std::string name(list.bytes(head.name));
    Reader attributes(list.bytes(head.attributes));
    const std::string_view content = list.bytes(head.content);
    try {
      enter(directory);
      const Descriptor file(create(name));
      fill(file.get(), content);
      return dress(file.get(), head, attributes);
    } catch (const Errno& error) {
      return static_cast<uint32_t>(error.number);
    }
  }

 private:
  // Files of one directory are consecutive: it stays open until the next one.
  void enter(std::string_view directory) {
    if (directory_.get() >= 0 && directory == entered_) return;
    const int fd = openBelow(root_, std::string(directory), DIRECTORY);
    if (fd < 0) throw Errno{-fd};
    directory_.reset(fd);
    entered_ = directory;
  }

  int create(const std::string& name) const {
    const int fd = openat(directory_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) throw Errno{errno};
    return fd;
  }

  static void fill(int fd, std::string_view content) {
    while (!content.empty()) {
      const ssize_t written = write(fd, content.data(), content.size());
      if (written < 0 && errno != EINTR) throw Errno{errno};
      if (written > 0) content.remove_prefix(static_cast<size_t>(written));
    }
  }

  // Owner first, since changing it clears bits of the mode and capabilities; times last.
  static uint32_t dress(int fd, const Head& head, Reader& attributes) {
    uint32_t outcome = 0;
    if (head.owned != 0 && fchown(fd, head.uid, head.gid) != 0) {
      if (!isNotPermitted(errno)) throw Errno{errno};
      outcome |= OWNER_SKIPPED;
    }
    while (!attributes.atEnd()) {
      const auto nameSize = attributes.value<uint32_t>();
      const auto valueSize = attributes.value<uint32_t>();
      const std::string name(attributes.bytes(nameSize));
      const std::string_view value = attributes.bytes(valueSize);
      if (fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) == 0) continue;
      if (!isNotPermitted(errno)) throw Errno{errno};
      outcome |= ATTRIBUTES_SKIPPED;
    }
    check(fchmod(fd, head.mode));
    const timespec times[2] = {{static_cast<time_t>(head.atimeSeconds), static_cast<long>(head.atimeNanos)},
                               {static_cast<time_t>(head.mtimeSeconds), static_cast<long>(head.mtimeNanos)}};
    check(futimens(fd, times));
    return outcome;
  }

  const int root_;
  Descriptor directory_;
  std::string entered_;
};

class MakeFiles : public ListWorker {
 public:
  MakeFiles(Napi::Env env, int root, Napi::Uint8Array list) : ListWorker(env, list), root_(root) {}

 private:
  void run(Reader& list, std::vector<uint32_t>& outcomes) override {
    FileMaker maker(root_);
    while (!list.atEnd()) outcomes.push_back(maker.make(list));
  }

  const int root_;
};

Napi::Value makeFilesCall(Info info) {
  return returnErrno(info, [&]() -> Napi::Value {
    const int root = numberArgument<int>(info, 0);
    return (new MakeFiles(info.Env(), root, listArgument(info, 1)))->start();
  });
}

// ------------------------------------------------------------------------------------------------- firstNoDirectory

class FirstNoDirectory : public Napi::AsyncWorker {
 public:
  FirstNoDirectory(Napi::Env env, std::string paths) : AsyncWorker(env), deferred_(env), paths_(std::move(paths)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    for (const char* path = paths_.data(); path < paths_.data() + paths_.size(); path += std::strlen(path) + 1, index_++) {
      struct stat found;
      const int number = statAt(AT_FDCWD, path, &found, 0) != 0 ? errno : S_ISDIR(found.st_mode) ? 0 : ENOTDIR;
      if (number == 0) continue;
      errno_ = number;
      return;
    }
  }

  void OnOK() override {
    Napi::Uint32Array found = Napi::Uint32Array::New(Env(), errno_ == 0 ? 0 : 2);
    if (errno_ != 0) {
      found[0] = index_;
      found[1] = static_cast<uint32_t>(errno_);
    }
    deferred_.Resolve(found);
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  // NUL-terminated.
  const std::string paths_;
  uint32_t index_ = 0;
  int errno_ = 0;
};

Napi::Value firstNoDirectoryCall(Info info) {
  return returnErrno(info, [&]() -> Napi::Value {
    std::string paths = bytesArgument(info, 0, true);
    if (!paths.empty() && paths.back() != '\0') throw Errno{EINVAL};
    auto* worker = new FirstNoDirectory(info.Env(), std::move(paths));
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  });
}

// -------------------------------------------------------------------------------------------------- syncFileSystem

class SyncFileSystem : public Napi::AsyncWorker {
 public:
  SyncFileSystem(Napi::Env env, std::string path) : AsyncWorker(env), deferred_(env), path_(std::move(path)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    const Descriptor directory(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() < 0 || syncfs(directory.get()) != 0) errno_ = errno;
  }

  void OnOK() override { deferred_.Resolve(Napi::Number::New(Env(), errno_)); }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  const std::string path_;
  int errno_ = 0;
};

Napi::Value syncFileSystemCall(Info info) {
  return returnErrno(info, [&]() -> Napi::Value {
    auto* worker = new SyncFileSystem(info.Env(), bytesArgument(info, 0));
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  });
}

// ---------------------------------------------------------------------------------------------------------- readNow

// (descriptor, bytes, position): preadv2(2) that does not wait, by syscall number: the C library's function is of 2.26.
// Returns the count, or a negative errno: EAGAIN when the disk is needed, EOPNOTSUPP when the file system cannot tell.
Napi::Value readNowCall(Info info) {
  Bytes bytes;
  int descriptor = -1;
  double position = -1;
  const bool given = napi_get_value_int32(info.Env(), info[0], &descriptor) == napi_ok && bytesOf(info[1], bytes) &&
                     napi_get_value_double(info.Env(), info[2], &position) == napi_ok;
  ssize_t count = -EINVAL;
  if (given && position >= 0 && position < 9007199254740992.0) {
    iovec into{bytes.data, bytes.length};
    count = syscall(SYS_preadv2, descriptor, &into, 1L, static_cast<long>(position), 0L, RWF_NOWAIT);
    if (count < 0) count = -errno;
  }
  return Napi::Number::New(info.Env(), static_cast<double>(count));
}

}  // namespace

void exportFiles(Napi::Env env, Napi::Object exports) {
  exports.Set("openBeneath", Napi::Function::New<openBeneathCall>(env));
  exports.Set("makeFiles", Napi::Function::New<makeFilesCall>(env));
  exports.Set("firstNoDirectory", Napi::Function::New<firstNoDirectoryCall>(env));
  exports.Set("syncFileSystem", Napi::Function::New<syncFileSystemCall>(env));
  exports.Set("readNow", Napi::Function::New<readNowCall>(env));
}

}  // namespace ebbtide::sys
