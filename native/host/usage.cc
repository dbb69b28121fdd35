// What a directory's entries take on disk, many in one call: counting the layers of an image one file at a time would be a hop to
// another thread for each. Wrapped by src/backends/sys.ts for src/backends/disk-usage.ts.
//
// Contract: `usageOf(directory, attribute)` returns a promise of a Buffer: inodes, blocks and the number of files with several names (64
// bits each, in the machine's byte order); of each of those files device, inode and blocks; then names, each with a letter before it and a
// NUL after it: `d`, directories, which are counted as well; `a`, files with content that have the extended attribute (empty: none is
// asked for). Or an errno. Each call takes what one read of the directory gives (some 2,000 names), and the next goes on after it; an
// empty result is the end. `directory` is open for reading, stays so until the promise is settled, and has one reader.
//
// Threads: runs on one of libuv's pool.
#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>

#include <cstring>

#include "host/sys.h"

namespace ebbtide::sys {
namespace {

constexpr size_t kReadBytes = 64 * 1024;

// As the kernel writes it (getdents64(2)).
struct Entry {
  uint64_t inode;
  int64_t offset;
  uint16_t length;
  uint8_t type;
  char name[1];
};

class UsageOf : public Napi::AsyncWorker {
 public:
  UsageOf(Napi::Env env, int directory, std::string attribute)
      : AsyncWorker(env), deferred_(env), directory_(directory), attribute_(std::move(attribute)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      count();
    } catch (const Errno& error) {
      errno_ = error.number;
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
  void count() {
    alignas(Entry) char entries[kReadBytes];
    const long size = syscall(SYS_getdents64, directory_, entries, sizeof entries);
    if (size < 0) throw Errno{errno};
    if (size == 0) return;
    uint64_t totals[3] = {0, 0, 0};
    std::string linked;
    std::string names;
    for (const char* at = entries; at < entries + size; at += reinterpret_cast<const Entry*>(at)->length) {
      const char* name = reinterpret_cast<const Entry*>(at)->name;
      if (std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0) continue;
      struct stat found;
      if (statAt(directory_, name, &found, AT_SYMLINK_NOFOLLOW) != 0) {
        // It has gone meanwhile.
        if (errno == ENOENT) continue;
        throw Errno{errno};
      }
      if (S_ISREG(found.st_mode) && found.st_size > 0 && hasAttribute(name)) add(names, 'a', name);
      const auto blocks = static_cast<uint64_t>(found.st_blocks);
      if (!S_ISDIR(found.st_mode) && found.st_nlink > 1) {
        totals[2]++;
        for (const uint64_t number : {static_cast<uint64_t>(found.st_dev), static_cast<uint64_t>(found.st_ino), blocks})
          linked.append(reinterpret_cast<const char*>(&number), sizeof number);
        continue;
      }
      totals[0]++;
      totals[1] += blocks;
      if (S_ISDIR(found.st_mode)) add(names, 'd', name);
    }
    answer_.assign(reinterpret_cast<const char*>(totals), sizeof totals);
    answer_ += linked;
    answer_ += names;
  }

  static void add(std::string& names, char letter, const char* name) {
    names += letter;
    names.append(name, std::strlen(name) + 1);
  }

  bool hasAttribute(const char* name) const {
    if (attribute_.empty()) return false;
    const std::string path = "/proc/self/fd/" + std::to_string(directory_) + "/" + name;
    if (lgetxattr(path.c_str(), attribute_.c_str(), nullptr, 0) >= 0) return true;
    if (errno == ENODATA || errno == ENOTSUP || errno == EPERM || errno == EACCES || errno == ENOENT) return false;
    throw Errno{errno};
  }

  Napi::Promise::Deferred deferred_;
  const int directory_;
  const std::string attribute_;
  int errno_ = 0;
  std::string answer_;
};

Napi::Value usageOfCall(Info info) {
  return returnErrno(info, [&]() -> Napi::Value {
    auto* worker = new UsageOf(info.Env(), numberArgument<int>(info, 0), bytesArgument(info, 1));
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  });
}

}  // namespace

void exportUsage(Napi::Env env, Napi::Object exports) { exports.Set("usageOf", Napi::Function::New<usageOfCall>(env)); }

}  // namespace ebbtide::sys
