// What stands under many names of one directory, in one call: kind, owner, times, extended attributes, where a symlink
// leads, and the content of small files. Reading the layer of a container with a hundred thousand files would else be a
// million calls from JavaScript. src/backends/archive/looked-at.ts reads the result.
//
// Threads: runs on one of libuv's pool; the caller keeps the directory open until the promise is settled. The names are
// looked at one after the other, never through a symlink; of one that changes meanwhile the result may be "ask again".
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "host/sys.h"

namespace ebbtide::sys {
namespace {

// One name in the result, in the machine's byte order; attributes, destination and content follow. Attributes: length of
// the name, of the value (32 bits each), name, value; and again.
struct Seen {
  // 0, ENOENT, or what makes the caller ask for this name alone.
  uint32_t number = 0;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t size = 0;
  int64_t mtimeSeconds = 0;
  uint64_t inode = 0;
  uint64_t device = 0;
  uint64_t special = 0;
  uint32_t mtimeNanos = 0;
  uint32_t links = 0;
  uint32_t attributes = 0;
  uint32_t destination = 0;
  // kNoContent: it was not read.
  uint32_t content = 0;
  uint32_t unused = 0;
};
static_assert(sizeof(Seen) == 80);

constexpr uint32_t kNoContent = 0xffffffff;
// Above what Linux has for the names of one inode, and for a value.
constexpr size_t kAttributeBytesMax = 65536;
constexpr size_t kDestinationBytesMax = 4096;

struct Limits {
  size_t contentMax;
  // Of the contents of all names together, and of their attributes.
  size_t budget;
};

class Looker {
 public:
  Looker(int directory, Limits limits) : directory_(directory), limits_(limits), prefix_("/proc/self/fd/" + std::to_string(directory) + "/") {}

  void look(const std::string& name) {
    Seen seen;
    rest_.clear();
    try {
      describe(name, seen);
    } catch (const Errno& error) {
      seen = Seen{};
      seen.number = static_cast<uint32_t>(error.number);
      rest_.clear();
    }
    append(answer_, seen);
    answer_ += rest_;
  }

  std::string take() { return std::move(answer_); }

 private:
  template <typename T>
  static void append(std::string& to, const T& value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof value);
  }

  void describe(const std::string& name, Seen& seen) {
    struct stat found;
    check(statAt(directory_, name.c_str(), &found, AT_SYMLINK_NOFOLLOW));
    seen.mode = found.st_mode;
    seen.uid = found.st_uid;
    seen.gid = found.st_gid;
    seen.size = found.st_size;
    seen.mtimeSeconds = found.st_mtim.tv_sec;
    seen.mtimeNanos = static_cast<uint32_t>(found.st_mtim.tv_nsec);
    seen.inode = found.st_ino;
    seen.device = found.st_dev;
    seen.special = found.st_rdev;
    seen.links = static_cast<uint32_t>(std::min<uint64_t>(found.st_nlink, 0xffffffff));
    readAttributes(prefix_ + name);
    seen.attributes = static_cast<uint32_t>(rest_.size());
    if (S_ISLNK(found.st_mode)) seen.destination = readDestination(name);
    seen.content = S_ISREG(found.st_mode) ? readContent(name, found) : kNoContent;
  }

  void readAttributes(const std::string& path) {
    char names[kAttributeBytesMax];
    const ssize_t size = llistxattr(path.c_str(), names, sizeof names);
    if (size < 0) {
      // There are none for this user, or on this file system.
      if (errno == ENOTSUP || errno == EPERM || errno == EACCES || errno == EINVAL || errno == ENOSYS) return;
      throw Errno{errno};
    }
    for (const char* name = names; name < names + size; name += std::strlen(name) + 1) {
      value_.resize(kAttributeBytesMax);
      const ssize_t length = lgetxattr(path.c_str(), name, value_.data(), value_.size());
      if (length < 0) {
        if (errno == ENODATA || errno == ENOTSUP || errno == EPERM || errno == EACCES) continue;
        throw Errno{errno};
      }
      spend(static_cast<size_t>(length));
      append(rest_, static_cast<uint32_t>(std::strlen(name)));
      append(rest_, static_cast<uint32_t>(length));
      rest_ += name;
      rest_.append(value_.data(), static_cast<size_t>(length));
    }
  }

  uint32_t readDestination(const std::string& name) {
    char destination[kDestinationBytesMax];
    const ssize_t size = readlinkat(directory_, name.c_str(), destination, sizeof destination);
    if (size < 0) throw Errno{errno};
    rest_.append(destination, static_cast<size_t>(size));
    return static_cast<uint32_t>(size);
  }

  // Of the file that was described, as long as it is that long; else it is read by itself.
  uint32_t readContent(const std::string& name, const struct stat& described) {
    const auto size = static_cast<size_t>(described.st_size);
    if (size == 0) return 0;
    if (size > limits_.contentMax || size > limits_.budget - spent_) return kNoContent;
    const Descriptor file(openat(directory_, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat opened;
    if (file.get() < 0 || statAt(file.get(), "", &opened, AT_EMPTY_PATH) != 0) return kNoContent;
    if (opened.st_ino != described.st_ino || opened.st_dev != described.st_dev) return kNoContent;
    // A byte more, to see whether it has grown.
    value_.resize(size + 1);
    size_t got = 0;
    while (got <= size) {
      const ssize_t more = read(file.get(), value_.data() + got, size + 1 - got);
      if (more < 0 && errno == EINTR) continue;
      if (more <= 0) break;
      got += static_cast<size_t>(more);
    }
    if (got != size) return kNoContent;
    spend(size);
    rest_.append(value_.data(), size);
    return static_cast<uint32_t>(size);
  }

  // EOVERFLOW: there is more than one call may return; the caller asks for this name alone.
  void spend(size_t bytes) {
    if (bytes > limits_.budget - spent_) throw Errno{EOVERFLOW};
    spent_ += bytes;
  }

  const int directory_;
  const Limits limits_;
  const std::string prefix_;
  size_t spent_ = 0;
  std::string value_;
  std::string rest_;
  std::string answer_;
};

class LookAt : public Napi::AsyncWorker {
 public:
  LookAt(Napi::Env env, int root, std::string directory, std::string names, Limits limits)
      : AsyncWorker(env), deferred_(env), root_(root), directory_(std::move(directory)), names_(std::move(names)), limits_(limits) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    const int fd = openBelow(root_, directory_, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0) {
      errno_ = -fd;
      return;
    }
    const Descriptor directory(fd);
    try {
      Looker looker(directory.get(), limits_);
      for (const char* name = names_.data(); name < names_.data() + names_.size(); name += std::strlen(name) + 1) looker.look(name);
      answer_ = looker.take();
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnOK() override {
    if (errno_ != 0) deferred_.Resolve(Napi::Number::New(Env(), errno_));
    else deferred_.Resolve(Napi::Buffer<char>::Copy(Env(), answer_.data(), answer_.size()));
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  const int root_;
  const std::string directory_;
  // Each ends with a NUL.
  const std::string names_;
  const Limits limits_;
  int errno_ = 0;
  std::string answer_;
};

Napi::Value lookAtCall(Info info) {
  return returnErrno(info, [&]() -> Napi::Value {
    const int root = numberArgument<int>(info, 0);
    std::string directory = bytesArgument(info, 1);
    std::string names = bytesArgument(info, 2, true);
    if (directory.empty() || directory.front() == '/') throw Errno{EINVAL};
    if (names.empty() || names.back() != '\0' || names.find('/') != std::string::npos) throw Errno{EINVAL};
    const Limits limits{numberArgument<size_t>(info, 3), numberArgument<size_t>(info, 4)};
    auto* worker = new LookAt(info.Env(), root, std::move(directory), std::move(names), limits);
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  });
}

}  // namespace

void exportLookAt(Napi::Env env, Napi::Object exports) { exports.Set("lookAt", Napi::Function::New<lookAtCall>(env)); }

}  // namespace ebbtide::sys
