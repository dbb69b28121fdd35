// System calls that Node lacks on Linux: mount, umount2, mknod, extended attributes, times in nanoseconds,
// preallocation, ids of mounts, the file that a name leads to; files.cc has openat2 and the creation of many small files,
// sockets.cc what concerns unix sockets. Wrapped by src/backends/sys.ts and src/system/, which turn error numbers into Node's kind of
// errors.
//
// Contract: a function returns 0 or an errno (those that read: a Buffer or an errno). Invalid arguments return
// EINVAL before any call is made. A link at the last component of a path is not followed, except by `leadsTo`,
// mount, and umount unless its flags say so. Strings and bytes must not contain NUL.
//
// Threads: any JavaScript thread; no state. Calls block for as long as the kernel does. Units: nanoseconds since
// 1970, bytes.
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "host/lmdb_guard.h"
#include "host/sys.h"

namespace ebbtide::sys {
namespace {

// A size of a file: up to the largest integer that a double represents exactly.
int64_t sizeArgument(Info info, size_t i) {
  double number = 0;
  if (napi_get_value_double(info.Env(), info[i], &number) != napi_ok || !(number >= 0) || number > 9007199254740991.0 ||
      std::floor(number) != number) {
    throw Errno{EINVAL};
  }
  return static_cast<int64_t>(number);
}

// Seconds and nanoseconds: more than 64 bits of nanoseconds, since files may have times after 2262.
timespec timeArgument(Info info, size_t i) {
  int64_t seconds = 0;
  if (napi_get_value_int64(info.Env(), info[i], &seconds) != napi_ok) throw Errno{EINVAL};
  return {static_cast<time_t>(seconds), numberArgument<long>(info, i + 1)};
}

// --------------------------------------------------------------------------------------------------------- mounts

struct MountCall {
  std::string source;
  std::string target;
  std::string type;
  unsigned long flags;
  std::string data;

  int run() const {
    const bool done = mount(source.empty() ? nullptr : source.c_str(), target.c_str(), type.empty() ? nullptr : type.c_str(),
                            flags, data.empty() ? nullptr : data.c_str()) == 0;
    return done ? 0 : errno;
  }

  // Relative paths start in `directory`: on a thread of its own, so that the process's working directory does not
  // change.
  int runIn(const std::string& directory) const {
    int number = 0;
    std::thread([&] {
      if (unshare(CLONE_FS) != 0 || chdir(directory.c_str()) != 0) number = errno;
      else number = run();
    }).join();
    return number;
  }
};

Napi::Value mountCall(Info info) {
  return returnErrno(info, [&] {
    const MountCall call{bytesArgument(info, 0), bytesArgument(info, 1), bytesArgument(info, 2),
                         numberArgument<unsigned long>(info, 3), bytesArgument(info, 4)};
    const std::string directory = bytesArgument(info, 5);
    // The kernel accepts a page of options and truncates the rest.
    if (call.data.size() > 4095) throw Errno{E2BIG};
    const int number = directory.empty() ? call.run() : call.runIn(directory);
    if (number != 0) throw Errno{number};
    return success(info);
  });
}

Napi::Value umountCall(Info info) {
  return returnErrno(info, [&] {
    check(umount2(bytesArgument(info, 0).c_str(), numberArgument<int>(info, 1)));
    return success(info);
  });
}

// ---------------------------------------------------------------------------------------------------------- files

// chmod(2) of the path itself; EOPNOTSUPP for a link. C libraries before glibc 2.32 and kernels before 6.6 have no
// such call: there the file is opened by a descriptor that does not follow a link.
void chmodItself(const std::string& path, mode_t mode) {
  constexpr long kFchmodat2 = 452;
  if (syscall(kFchmodat2, AT_FDCWD, path.c_str(), mode, AT_SYMLINK_NOFOLLOW) == 0) return;
  // EPERM: seccomp filters return it for calls that they do not know.
  if (errno != ENOSYS && errno != EPERM) throw Errno{errno};
  const Descriptor file(open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  check(file.get() < 0 ? -1 : 0);
  struct stat found{};
  check(statAt(file.get(), "", &found, AT_EMPTY_PATH));
  if (S_ISLNK(found.st_mode)) throw Errno{EOPNOTSUPP};
  check(chmod(("/proc/self/fd/" + std::to_string(file.get())).c_str(), mode));
}

Napi::Value mknodCall(Info info) {
  return returnErrno(info, [&] {
    const std::string path = bytesArgument(info, 0);
    const auto mode = numberArgument<mode_t>(info, 1);
    const dev_t device = makedev(numberArgument<unsigned>(info, 2), numberArgument<unsigned>(info, 3));
    // By number: the C library's function has another name before glibc 2.33.
    check(syscall(SYS_mknodat, AT_FDCWD, path.c_str(), mode, static_cast<unsigned>(device)));
    // The umask applies to mknod(2); changing it would affect every thread of the process.
    chmodItself(path, mode & 07777);
    return success(info);
  });
}

Napi::Value utimesCall(Info info) {
  return returnErrno(info, [&] {
    const timespec times[2] = {timeArgument(info, 1), timeArgument(info, 3)};
    check(utimensat(AT_FDCWD, bytesArgument(info, 0).c_str(), times, AT_SYMLINK_NOFOLLOW));
    return success(info);
  });
}

// (fd, offset, bytes): allocates blocks for a part of a file; changes neither its content nor its size.
Napi::Value allocateCall(Info info) {
  return returnErrno(info, [&] {
    const int fd = numberArgument<int>(info, 0);
    const auto offset = static_cast<off_t>(sizeArgument(info, 1));
    const auto length = static_cast<off_t>(sizeArgument(info, 2));
    int result = 0;
    do {
      result = fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length);
    } while (result != 0 && errno == EINTR);
    check(result);
    return success(info);
  });
}

// (fd of an empty file): where the file system writes to other blocks than those that a file has (btrfs), not for this one.
Napi::Value writeInPlaceCall(Info info) {
  return returnErrno(info, [&] {
    const int fd = numberArgument<int>(info, 0);
    int flags = 0;
    check(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    flags |= FS_NOCOW_FL;
    check(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    return success(info);
  });
}

// (fd): sets the close-on-exec flag.
Napi::Value closeOnExecCall(Info info) {
  return returnErrno(info, [&] {
    const int fd = numberArgument<int>(info, 0);
    const int flags = fcntl(fd, F_GETFD);
    check(flags < 0 ? -1 : 0);
    check(fcntl(fd, F_SETFD, flags | FD_CLOEXEC));
    return success(info);
  });
}

// (fd, from, to): whether another open file description, of any process, holds a lock (F_OFD_SETLK) on a byte in
// [from, to) that would keep this one from locking it exclusively.
Napi::Value isLockedCall(Info info) {
  return returnErrno(info, [&] {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = sizeArgument(info, 1);
    lock.l_len = sizeArgument(info, 2) - lock.l_start;
    check(fcntl(numberArgument<int>(info, 0), F_OFD_GETLK, &lock));
    return Napi::Value(Napi::Boolean::New(info.Env(), lock.l_type != F_UNLCK));
  });
}

// (directory, path, identity): 0 when the path leads to the file with this device and inode, -1 when to another
// one. The path starts in the directory (a descriptor; -1: the current one); a link at its end is followed.
// Identity: two 64-bit numbers.
Napi::Value leadsToCall(Info info) {
  return returnErrno(info, [&] {
    const std::string path = bytesArgument(info, 1);
    int32_t directory = -1;
    napi_typedarray_type type = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
    if (napi_get_value_int32(info.Env(), info[0], &directory) != napi_ok ||
        napi_get_typedarray_info(info.Env(), info[2], &type, &length, &data, nullptr, nullptr) != napi_ok ||
        type != napi_biguint64_array || length != 2) {
      throw Errno{EINVAL};
    }
    // Not statx, which filters of system calls may refuse that are older than it; glibc has the function since 2.33 only.
    struct stat found {};
    check(static_cast<int>(syscall(SYS_newfstatat, directory < 0 ? AT_FDCWD : directory, path.c_str(), &found, 0)));
    const auto* identity = static_cast<const uint64_t*>(data);
    const bool isSame = found.st_dev == identity[0] && found.st_ino == identity[1];
    return Napi::Value(Napi::Number::New(info.Env(), isSame ? 0 : -1));
  });
}

Napi::Value guardLmdbCall(Info info) { return Napi::Boolean::New(info.Env(), ebbtide::guardLmdb()); }

// (begins, withoutLocks)
Napi::Value openingLmdbCall(Info info) {
  const bool withoutLocks = info[1].ToBoolean();
  if (!info[0].ToBoolean()) {
    ebbtide::openingLmdb(Opening::kNone);
  } else {
    ebbtide::openingLmdb(withoutLocks ? Opening::kWithoutLocks : Opening::kWithLocks);
  }
  return info.Env().Undefined();
}

Napi::Value opensWithoutLocksCall(Info info) { return Napi::Boolean::New(info.Env(), ebbtide::opensWithoutLocks()); }

Napi::Value lmdbLinesCall(Info info) {
  const std::vector<std::string> lines = ebbtide::takeLmdbLines();
  Napi::Array array = Napi::Array::New(info.Env(), lines.size());
  for (uint32_t i = 0; i < lines.size(); i++) array.Set(i, Napi::String::New(info.Env(), lines[i]));
  return array;
}

Napi::Value lsetxattrCall(Info info) {
  return returnErrno(info, [&] {
    const std::string value = bytesArgument(info, 2, true);
    check(lsetxattr(bytesArgument(info, 0).c_str(), bytesArgument(info, 1).c_str(), value.data(), value.size(), 0));
    return success(info);
  });
}

// Reads something whose size may change between the query and the read.
template <typename Read>
std::vector<char> readWhole(Read read) {
  for (;;) {
    const ssize_t size = read(nullptr, 0);
    if (size < 0) throw Errno{errno};
    std::vector<char> bytes(static_cast<size_t>(size) + 1);
    const ssize_t got = read(bytes.data(), bytes.size());
    if (got < 0 && errno == ERANGE) continue;
    if (got < 0) throw Errno{errno};
    bytes.resize(static_cast<size_t>(got));
    return bytes;
  }
}

Napi::Value lgetxattrCall(Info info) {
  return returnErrno(info, [&] {
    const std::string path = bytesArgument(info, 0);
    const std::string name = bytesArgument(info, 1);
    return toBuffer(info, readWhole([&](char* to, size_t size) { return lgetxattr(path.c_str(), name.c_str(), to, size); }));
  });
}

Napi::Value llistxattrCall(Info info) {
  return returnErrno(info, [&] {
    const std::string path = bytesArgument(info, 0);
    return toBuffer(info, readWhole([&](char* to, size_t size) { return llistxattr(path.c_str(), to, size); }));
  });
}

Napi::Value lremovexattrCall(Info info) {
  return returnErrno(info, [&] {
    check(lremovexattr(bytesArgument(info, 0).c_str(), bytesArgument(info, 1).c_str()));
    return success(info);
  });
}

// The id of the mount that a file was opened through, which the kernel gives to no other until it restarts: a BigInt. ENOSYS before
// Linux 6.8. Of struct statx, whose fields older headers lack.
Napi::Value uniqueMountIdCall(Info info) {
  return returnErrno(info, [&]() -> Napi::Value {
    constexpr uint32_t kMountIdUnique = 0x4000;  // STATX_MNT_ID_UNIQUE
    constexpr size_t kMountId = 0x90;            // stx_mnt_id
    alignas(8) std::array<char, 256> found{};
    check(static_cast<int>(syscall(SYS_statx, numberArgument<int>(info, 0), "", AT_EMPTY_PATH, kMountIdUnique, found.data())));
    uint32_t mask = 0;
    uint64_t id = 0;
    std::memcpy(&mask, found.data(), sizeof mask);
    std::memcpy(&id, found.data() + kMountId, sizeof id);
    if ((mask & kMountIdUnique) == 0) throw Errno{ENOSYS};
    return Napi::BigInt::New(info.Env(), id);
  });
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("mount", Napi::Function::New<mountCall>(env));
  exports.Set("umount", Napi::Function::New<umountCall>(env));
  exports.Set("mknod", Napi::Function::New<mknodCall>(env));
  exports.Set("closeOnExec", Napi::Function::New<closeOnExecCall>(env));
  exports.Set("allocate", Napi::Function::New<allocateCall>(env));
  exports.Set("writeInPlace", Napi::Function::New<writeInPlaceCall>(env));
  exports.Set("leadsTo", Napi::Function::New<leadsToCall>(env));
  exports.Set("guardLmdb", Napi::Function::New<guardLmdbCall>(env));
  exports.Set("isLocked", Napi::Function::New<isLockedCall>(env));
  exports.Set("opensWithoutLocks", Napi::Function::New<opensWithoutLocksCall>(env));
  exports.Set("openingLmdb", Napi::Function::New<openingLmdbCall>(env));
  exports.Set("lmdbLines", Napi::Function::New<lmdbLinesCall>(env));
  exports.Set("utimes", Napi::Function::New<utimesCall>(env));
  exports.Set("lsetxattr", Napi::Function::New<lsetxattrCall>(env));
  exports.Set("lgetxattr", Napi::Function::New<lgetxattrCall>(env));
  exports.Set("llistxattr", Napi::Function::New<llistxattrCall>(env));
  exports.Set("lremovexattr", Napi::Function::New<lremovexattrCall>(env));
  exportFileSteps(env, exports);
  exportFiles(env, exports);
  exportGzip(env, exports);
  exportLookAt(env, exports);
  exportSockets(env, exports);
  exportUsage(env, exports);
  exports.Set("uniqueMountId", Napi::Function::New<uniqueMountIdCall>(env));
  return exports;
}

}  // namespace
}  // namespace ebbtide::sys

using ebbtide::sys::initialize;
NODE_API_MODULE(ebbtide_sys, initialize)
