#include "steps.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace ebbtide {
namespace {

// The same numbers as in steps.ts.
enum class Op : int {
  mkdir = 0,
  chmod,
  put,
  open,
  close,
  sync,
  size,
  touch,
  readOnly,
  absent,
  rename,
  unlink,
  rmdir,
  syncDirectory,
};
constexpr int kOps = 14;
constexpr uint32_t kStepsMax = 64;

struct Step {
  Op op = Op::mkdir;
  bool optional = false;
  std::string path;
  // The second path, or what a file is to hold.
  std::string text;
  // A descriptor or flags.
  int number = 0;
  mode_t mode = 0;
};

double resultOf(int result) { return result < 0 ? -errno : result; }

// Ends a descriptor whatever the outcome; an earlier error stays the answer.
double closing(int fd, double result) {
  const int ended = ::close(fd);
  return result < 0 || ended == 0 ? result : -errno;
}

double put(const Step& step) {
  const int fd = ::open(step.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, step.mode);
  if (fd < 0) return -errno;
  double result = 0;
  for (size_t done = 0; done < step.text.size() && result == 0;) {
    const ssize_t written = ::write(fd, step.text.data() + done, step.text.size() - done);
    if (written >= 0) done += static_cast<size_t>(written);
    else if (errno != EINTR) result = -errno;
  }
  return closing(fd, result);
}

double syncDirectory(const Step& step) {
  const int fd = ::open(step.path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  // File systems that cannot do it are taken at their word.
  const double result = ::fsync(fd) == 0 || errno == EINVAL ? 0 : -errno;
  return closing(fd, result);
}

double sizeOf(int fd) {
  struct stat stats {};
  return ::fstat(fd, &stats) == 0 ? static_cast<double>(stats.st_size) : -errno;
}

double readOnly(int fd) {
  struct stat stats {};
  if (::fstat(fd, &stats) != 0) return -errno;
  return resultOf(::fchmod(fd, stats.st_mode & 0444));
}

double absent(const std::string& path) {
  struct stat stats {};
  if (::stat(path.c_str(), &stats) == 0) return -EEXIST;
  return errno == ENOENT ? 0 : -errno;
}

double carryOut(const Step& step) {
  const char* path = step.path.c_str();
  switch (step.op) {
    case Op::mkdir: return resultOf(::mkdir(path, step.mode));
    case Op::chmod: return resultOf(::chmod(path, step.mode));
    case Op::put: return put(step);
    case Op::open: return resultOf(::open(path, step.number | O_CLOEXEC, step.mode));
    case Op::close: return resultOf(::close(step.number));
    case Op::sync: return resultOf(::fsync(step.number));
    case Op::size: return sizeOf(step.number);
    case Op::touch: return resultOf(::futimens(step.number, nullptr));
    case Op::readOnly: return readOnly(step.number);
    case Op::absent: return absent(step.path);
    case Op::rename: return resultOf(::rename(path, step.text.c_str()));
    case Op::unlink: return resultOf(::unlink(path));
    case Op::rmdir: return resultOf(::rmdir(path));
    case Op::syncDirectory: return syncDirectory(step);
  }
  return -EINVAL;
}

class Run final : public Napi::AsyncWorker {
 public:
  Run(Napi::Env env, std::vector<Step> steps)
      : Napi::AsyncWorker(env, "ebbtide:steps"), steps_(std::move(steps)), deferred_(Napi::Promise::Deferred::New(env)) {
    results_.reserve(steps_.size());
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    for (const Step& step : steps_) {
      results_.push_back(carryOut(step));
      if (results_.back() < 0 && !step.optional) return;
    }
  }

  void OnOK() override {
    const Napi::Env env = Env();
    const Napi::HandleScope scope(env);
    const Napi::Array results = Napi::Array::New(env, results_.size());
    for (uint32_t i = 0; i < results_.size(); i++) results.Set(i, Napi::Number::New(env, results_[i]));
    deferred_.Resolve(results);
  }

 private:
  std::vector<Step> steps_;
  std::vector<double> results_;
  Napi::Promise::Deferred deferred_;
};

bool readText(const Napi::Value& value, bool nulAllowed, std::string& to) {
  if (!value.IsString()) return false;
  to = value.As<Napi::String>().Utf8Value();
  return nulAllowed || to.find('\0') == std::string::npos;
}

bool readNumber(const Napi::Value& value, double max, double& to) {
  if (!value.IsNumber()) return false;
  to = value.As<Napi::Number>().DoubleValue();
  return to >= 0 && to <= max && std::floor(to) == to;
}

// [op, path, text, number, mode, optional]
bool readStep(const Napi::Value& value, Step& step) {
  if (!value.IsArray()) return false;
  const Napi::Array parts = value.As<Napi::Array>();
  double op = 0;
  double number = 0;
  double mode = 0;
  if (parts.Length() != 6 || !readNumber(parts.Get(0U), kOps - 1, op)) return false;
  step.op = static_cast<Op>(static_cast<int>(op));
  if (!readText(parts.Get(1U), false, step.path) || !readText(parts.Get(2U), step.op == Op::put, step.text)) return false;
  if (!readNumber(parts.Get(3U), 2147483647.0, number) || !readNumber(parts.Get(4U), 07777, mode)) return false;
  const Napi::Value optional = parts.Get(5U);
  if (!optional.IsBoolean()) return false;
  step.number = static_cast<int>(number);
  step.mode = static_cast<mode_t>(mode);
  step.optional = optional.As<Napi::Boolean>().Value();
  return true;
}

}  // namespace

Napi::Value runSteps(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto refuse = [&] {
    if (!env.IsExceptionPending()) Napi::TypeError::New(env, "steps are not well-formed").ThrowAsJavaScriptException();
    return env.Undefined();
  };
  if (info.Length() != 1 || !info[0].IsArray()) return refuse();
  const Napi::Array list = info[0].As<Napi::Array>();
  if (list.Length() > kStepsMax) return refuse();
  std::vector<Step> steps(list.Length());
  for (uint32_t i = 0; i < list.Length(); i++) {
    if (!readStep(list.Get(i), steps[i])) return refuse();
  }
  auto* const run = new Run(env, std::move(steps));
  const Napi::Promise promise = run->promise();
  run->Queue();
  return promise;
}

}  // namespace ebbtide
