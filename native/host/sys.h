// Shared by the files of the addon `ebbtide_sys`: reading arguments, results that are an errno, and descriptors
// that close themselves.
//
// Contract and threads: see sys.cc. The readers throw `Errno`, which `returnErrno` turns into the function's result.
#pragma once

#include <napi.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace ebbtide::sys {

using Info = const Napi::CallbackInfo&;

// Thrown by the argument readers and by `Sys`; becomes the function's result.
struct Errno {
  int number;
};

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { reset(-1); }

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

 private:
  int fd_;
};

inline std::string bytesArgument(Info info, size_t i, bool nulAllowed = false) {
  std::string bytes;
  const Napi::Value value = info[i];
  if (value.IsString()) {
    bytes = value.As<Napi::String>().Utf8Value();
  } else {
    napi_typedarray_type type = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
    napi_value buffer = nullptr;
    if (!value.IsTypedArray() || napi_get_typedarray_info(info.Env(), value, &type, &length, &data, &buffer, nullptr) != napi_ok ||
        type != napi_uint8_array) {
      throw Errno{EINVAL};
    }
    if (data != nullptr) bytes.assign(static_cast<const char*>(data), length);
  }
  if (!nulAllowed && bytes.find('\0') != std::string::npos) throw Errno{EINVAL};
  return bytes;
}

template <typename T>
T numberArgument(Info info, size_t i) {
  double number = 0;
  if (napi_get_value_double(info.Env(), info[i], &number) != napi_ok || !(number >= 0) || number > 4294967295.0 ||
      std::floor(number) != number) {
    throw Errno{EINVAL};
  }
  return static_cast<T>(number);
}

inline void check(int result) {
  if (result != 0) throw Errno{errno};
}

// fstatat(2), by syscall number: the C library's function has another name before glibc 2.33.
inline int statAt(int directory, const char* path, struct stat* found, int flags) {
  return static_cast<int>(syscall(SYS_newfstatat, directory, path, found, flags));
}

template <typename Body>
Napi::Value returnErrno(Info info, Body body) {
  int number = 0;
  try {
    return body();
  } catch (const Errno& error) {
    number = error.number;
  } catch (const std::system_error& error) {
    // No thread could be started.
    number = error.code().value();
  } catch (const std::exception&) {
    number = ENOMEM;
  }
  return Napi::Number::New(info.Env(), number);
}

inline Napi::Value toBuffer(Info info, const std::vector<char>& bytes) {
  return Napi::Buffer<char>::Copy(info.Env(), bytes.data(), bytes.size());
}

inline Napi::Value success(Info info) { return Napi::Number::New(info.Env(), 0); }

// openat2(2) that follows no symlink and stays below the directory (files.cc): a descriptor, or a negative errno. REQUIRES:
// `path` is relative, its names are separated by one slash each.
int openBelow(int directory, const std::string& path, int flags);

// Functions of file_steps.cc, files.cc, gzip.cc, look_at.cc, sockets.cc and usage.cc.
void exportFileSteps(Napi::Env env, Napi::Object exports);
void exportFiles(Napi::Env env, Napi::Object exports);
void exportGzip(Napi::Env env, Napi::Object exports);
void exportLookAt(Napi::Env env, Napi::Object exports);
void exportSockets(Napi::Env env, Napi::Object exports);
void exportUsage(Napi::Env env, Napi::Object exports);

}  // namespace ebbtide::sys
