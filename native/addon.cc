// The graph core for Node: class Graph, one method for each of src/engine/graph.ts (src/graph/core-graph.ts wraps
// it).
//
// Contract: every argument's type, length and range is checked here; a wrong one throws a JavaScript Error whose
// `kind` is one of src/errors.ts. No argument can crash the process.
//
// Threads: an instance belongs to the JavaScript thread that made it; there may be any number, in any number of
// worker threads. `mark` and `save` run on libuv's pool, keep what they need alive, and Node waits for them when
// their environment ends. Graphs of some thousand nodes are marked within the call. Units: times are BigInt
// nanoseconds since 1970, durations milliseconds.
#include <napi.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <span>

#include "core.h"
#include "graph/path.h"

namespace ebbtide {
namespace {

// ------------------------------------------------------------------------------------------------------- arguments

Napi::Value argument(const Napi::CallbackInfo& info, size_t i) { return info[i]; }

const char* nameOf(napi_typedarray_type type) {
  if (type == napi_uint32_array) return "Uint32Array";
  return type == napi_float64_array ? "Float64Array" : "Uint8Array";
}

size_t sizeOf(napi_typedarray_type type) {
  if (type == napi_uint32_array) return sizeof(uint32_t);
  return type == napi_float64_array ? sizeof(double) : 1;
}

// The bytes of a typed array of this type. Shared memory is refused: another thread could change it while it is read.
std::span<const uint8_t> arrayArgument(const Napi::CallbackInfo& info, size_t i, napi_typedarray_type wanted) {
  napi_env env = info.Env();
  napi_value value = argument(info, i);
  bool isArray = false;
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  napi_value buffer = nullptr;
  size_t offset = 0;
  bool isPlain = false;
  if (napi_is_typedarray(env, value, &isArray) != napi_ok || !isArray ||
      napi_get_typedarray_info(env, value, &type, &length, &data, &buffer, &offset) != napi_ok || type != wanted ||
      napi_is_arraybuffer(env, buffer, &isPlain) != napi_ok || !isPlain) {
    throw invalidArgument(std::string("expected a ") + nameOf(wanted) + " that is not shared between threads");
  }
  if (data == nullptr) return {};
  return {static_cast<const uint8_t*>(data), length * sizeOf(wanted)};
}

std::span<const uint32_t> wordsArgument(const Napi::CallbackInfo& info, size_t i) {
  const auto bytes = arrayArgument(info, i, napi_uint32_array);
  return {reinterpret_cast<const uint32_t*>(bytes.data()), bytes.size() / 4};
}

std::span<const double> doublesArgument(const Napi::CallbackInfo& info, size_t i) {
  const auto bytes = arrayArgument(info, i, napi_float64_array);
  return {reinterpret_cast<const double*>(bytes.data()), bytes.size() / sizeof(double)};
}

uint64_t countArgument(const Napi::CallbackInfo& info, size_t i) {
  double number = 0;
  if (napi_get_value_double(info.Env(), argument(info, i), &number) != napi_ok || !(number >= 0) ||
      number > 9007199254740991.0 || std::floor(number) != number) {
    throw invalidArgument("expected a whole number that is not negative");
  }
  return static_cast<uint64_t>(number);
}

// An id, or a value above any id.
NodeId idArgument(const Napi::CallbackInfo& info, size_t i) {
  return static_cast<NodeId>(std::min<uint64_t>(countArgument(info, i), kMaxNodes));
}

// How ops change marks: false, true or "late" as 0, 1, 2.
int64_t timeArgument(const Napi::CallbackInfo& info, size_t i) {
  int64_t time = 0;
  bool lossless = false;
  if (napi_get_value_bigint_int64(info.Env(), argument(info, i), &time, &lossless) != napi_ok || !lossless) {
    throw invalidArgument("expected a time of 64 bits, as a BigInt");
  }
  return time;
}

// --------------------------------------------------------------------------------------------------------- results

// A JavaScript Error with a kind. Null when the environment is ending and no values can be created.
napi_value makeError(napi_env env, const char* kind, const char* message) {
  napi_value text = nullptr;
  napi_value error = nullptr;
  napi_value kindText = nullptr;
  if (napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text) != napi_ok) return nullptr;
  if (napi_create_error(env, nullptr, text, &error) != napi_ok) return nullptr;
  if (napi_create_string_utf8(env, kind, NAPI_AUTO_LENGTH, &kindText) != napi_ok) return nullptr;
  if (napi_set_named_property(env, error, "kind", kindText) != napi_ok) return nullptr;
  return error;
}

Napi::Value makeWords(Napi::Env env, std::span<const uint32_t> words) {
  napi_value buffer = nullptr;
  napi_value array = nullptr;
  void* data = nullptr;
  if (napi_create_arraybuffer(env, words.size_bytes(), &data, &buffer) != napi_ok) throw std::bad_alloc();
  if (!words.empty()) std::memcpy(data, words.data(), words.size_bytes());
  if (napi_create_typedarray(env, napi_uint32_array, words.size(), buffer, 0, &array) != napi_ok) throw std::bad_alloc();
  return {env, array};
}

Napi::Value makeDoubles(Napi::Env env, std::span<const double> doubles) {
  napi_value buffer = nullptr;
  napi_value array = nullptr;
  void* data = nullptr;
  if (napi_create_arraybuffer(env, doubles.size_bytes(), &data, &buffer) != napi_ok) throw std::bad_alloc();
  if (!doubles.empty()) std::memcpy(data, doubles.data(), doubles.size_bytes());
  if (napi_create_typedarray(env, napi_float64_array, doubles.size(), buffer, 0, &array) != napi_ok) throw std::bad_alloc();
  return {env, array};
}

// Runs a method's body and turns what it throws into a JavaScript exception.
template <typename Body>
Napi::Value guarded(const Napi::CallbackInfo& info, Body body) {
  const char* kind = kNoMemory;
  std::string message = "out of memory";
  try {
    return body();
  } catch (const GraphError& error) {
    kind = error.kind();
    message = error.what();
  } catch (const std::bad_alloc&) {
  } catch (const std::exception& error) {
    kind = "Unknown";
    message = error.what();
  }
  const napi_value error = makeError(info.Env(), kind, message.c_str());
  if (error != nullptr) napi_throw(info.Env(), error);
  return {};
}

// -------------------------------------------------------------------------------------------------------- promises

napi_value makeResult(napi_env env, MarkJob& job) {
  const MarkCounts counts = job.result();
  Napi::Object object = Napi::Object::New(env);
  object.Set("markedByType", makeWords(env, counts.byType));
  object.Set("marked", static_cast<double>(counts.marked));
  object.Set("edgesFollowed", static_cast<double>(counts.edgesFollowed));
  object.Set("durationMs", job.durationMs());
  object.Set("marking", static_cast<double>(counts.marking));
  return object;
}

napi_value makeResult(napi_env env, CheckJob& job) {
  const auto wrong = job.result();
  return wrong.has_value() ? makeWords(env, *wrong) : Napi::Env(env).Undefined();
}

napi_value makeResult(napi_env env, RetainedJob& job) {
  const RetainedSums sums = job.result();
  Napi::Object object = Napi::Object::New(env);
  object.Set("kept", sums.kept);
  object.Set("total", makeDoubles(env, sums.total));
  object.Set("retained", makeDoubles(env, sums.retained));
  object.Set("reached", makeWords(env, sums.reached));
  object.Set("durationMs", job.durationMs());
  return object;
}

napi_value makeResult(napi_env env, SaveJob& job) {
  auto bytes = std::make_unique<std::vector<uint8_t>>(job.result());
  napi_value buffer = nullptr;
  const auto release = [](napi_env, void*, void* hint) { delete static_cast<std::vector<uint8_t>*>(hint); };
  if (napi_create_external_buffer(env, bytes->size(), bytes->data(), release, bytes.get(), &buffer) == napi_ok) {
    bytes.release();
    return buffer;
  }
  // Some embedders of V8 do not allow external memory.
  if (napi_create_buffer_copy(env, bytes->size(), bytes->data(), nullptr, &buffer) != napi_ok) throw std::bad_alloc();
  return buffer;
}

// A job on libuv's pool and the promise of its result.
template <typename Job>
class Promised {
 public:
  // Returns the promise. A job that runs synchronously is complete when this returns.
  static Napi::Value start(Napi::Env env, std::unique_ptr<Job> job, const char* name, bool atOnce) {
    auto self = std::make_unique<Promised>(std::move(job));
    napi_value promise = nullptr;
    napi_value resource = nullptr;
    if (napi_create_promise(env, &self->deferred_, &promise) != napi_ok) throw std::bad_alloc();
    if (atOnce) {
      self->job_->work();
      self->settle(env);
      return {env, promise};
    }
    if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &resource) != napi_ok ||
        napi_create_async_work(env, nullptr, resource, execute, complete, self.get(), &self->work_) != napi_ok ||
        napi_queue_async_work(env, self->work_) != napi_ok) {
      throw std::bad_alloc();
    }
    self.release();  // `complete` owns it now
    return {env, promise};
  }

  explicit Promised(std::unique_ptr<Job> job) : job_(std::move(job)) {}

 private:
  static void execute(napi_env, void* data) { static_cast<Promised*>(data)->job_->work(); }

  // Called on the JavaScript thread, also while the environment is ending: then no values can be created, and none
  // are needed.
  static void complete(napi_env env, napi_status, void* data) {
    const std::unique_ptr<Promised> self(static_cast<Promised*>(data));
    self->settle(env);
    napi_delete_async_work(env, self->work_);
  }

  void settle(napi_env env) {
    napi_value value = nullptr;
    std::string message = "out of memory";
    const char* kind = kNoMemory;
    try {
      value = makeResult(env, *job_);
    } catch (const GraphError& error) {
      kind = error.kind();
      message = error.what();
    } catch (const std::bad_alloc&) {
    }
    if (value != nullptr) {
      napi_resolve_deferred(env, deferred_, value);
      return;
    }
    value = makeError(env, kind, message.c_str());
    if (value != nullptr) napi_reject_deferred(env, deferred_, value);
  }

  std::unique_ptr<Job> job_;
  napi_deferred deferred_ = nullptr;
  napi_async_work work_ = nullptr;
};

// ----------------------------------------------------------------------------------------------------------- Graph

class GraphObject : public Napi::ObjectWrap<GraphObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Graph",
                       {
                           InstanceMethod<&GraphObject::apply>("apply"),
                           InstanceMethod<&GraphObject::mark>("mark"),
                           InstanceMethod<&GraphObject::markInSteps>("markInSteps"),
                           InstanceMethod<&GraphObject::markFrom>("markFrom"),
                           InstanceMethod<&GraphObject::marksOf>("marksOf"),
                           InstanceMethod<&GraphObject::places>("places"),
                           InstanceMethod<&GraphObject::candidates>("candidates"),
                           InstanceMethod<&GraphObject::stillCandidates>("stillCandidates"),
                           InstanceMethod<&GraphObject::catchUp>("catchUp"),
                           InstanceMethod<&GraphObject::bringUpToDate>("bringUpToDate"),
                           InstanceMethod<&GraphObject::wrongLive>("wrongLive"),
                           InstanceMethod<&GraphObject::checkLive>("checkLive"),
                           InstanceMethod<&GraphObject::garbageByType>("garbageByType"),
                           InstanceMethod<&GraphObject::garbage>("garbage"),
                           InstanceMethod<&GraphObject::freshGarbage>("freshGarbage"),
                           InstanceMethod<&GraphObject::endRun>("endRun"),
                           InstanceMethod<&GraphObject::takeFreeable>("takeFreeable"),
                           InstanceMethod<&GraphObject::unusedIds>("unusedIds"),
                           InstanceMethod<&GraphObject::withFlags>("withFlags"),
                           InstanceMethod<&GraphObject::flagsOf>("flagsOf"),
                           InstanceMethod<&GraphObject::inDegreeOf>("inDegreeOf"),
                           InstanceMethod<&GraphObject::expiryOf>("expiryOf"),
                           InstanceMethod<&GraphObject::edgesOf>("edgesOf"),
                           InstanceMethod<&GraphObject::rows>("rows"),
                           InstanceMethod<&GraphObject::path>("path"),
                           InstanceMethod<&GraphObject::retained>("retained"),
                           InstanceMethod<&GraphObject::save>("save"),
                           InstanceMethod<&GraphObject::load>("load"),
                           InstanceMethod<&GraphObject::stats>("stats"),
                           InstanceMethod<&GraphObject::clear>("clear"),
                       });
  }

  explicit GraphObject(const Napi::CallbackInfo& info) : ObjectWrap(info), core_(std::make_shared<Core>()) {}

 private:
  using Info = const Napi::CallbackInfo&;

  Napi::Value apply(Info info) {
    return guarded(info, [&] {
      core_->apply(wordsArgument(info, 0));
      return info.Env().Undefined();
    });
  }

  Napi::Value mark(Info info) {
    return guarded(info, [&] {
      auto job = core_->markAs(timeArgument(info, 0), countArgument(info, 1));
      const bool atOnce = core_->isSmall() || job->tryAtOnce();
      try {
        return Promised<MarkJob>::start(info.Env(), std::move(job), "ebbtide.mark", atOnce);
      } catch (...) {
        // No caller would end the run.
        core_->endRun();
        throw;
      }
    });
  }

  // For tests: returns a function that expands a number of nodes on this thread, and finally returns the result.
  Napi::Value markInSteps(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      const std::shared_ptr<MarkJob> job = core_->markAs(timeArgument(info, 0), countArgument(info, 1));
      const auto step = [job](Info call) {
        return guarded(call, [&]() -> Napi::Value {
          const size_t nodes = countArgument(call, 0);
          if (nodes == 0) throw invalidArgument("a step must be of one node or more");
          if (!job->step(nodes)) return call.Env().Undefined();
          return {call.Env(), makeResult(call.Env(), *job)};
        });
      };
      return Napi::Function::New(info.Env(), step, "markStep");
    });
  }

  Napi::Value markFrom(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      return Napi::Number::New(info.Env(), static_cast<double>(core_->markFrom(wordsArgument(info, 0))));
    });
  }

  Napi::Value marksOf(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      return Napi::Number::New(info.Env(), core_->marksOf(idArgument(info, 0)));
    });
  }

  Napi::Value places(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      return Napi::Number::New(info.Env(), static_cast<double>(core_->places()));
    });
  }

  Napi::Value candidates(Info info) {
    return guarded(info, [&] {
      return makeWords(info.Env(), core_->candidates(countArgument(info, 0), countArgument(info, 1)));
    });
  }

  Napi::Value stillCandidates(Info info) {
    return guarded(info, [&] { return makeWords(info.Env(), core_->stillCandidates(wordsArgument(info, 0))); });
  }

  Napi::Value catchUp(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      return Napi::Boolean::New(info.Env(), core_->catchUp(countArgument(info, 0)));
    });
  }

  Napi::Value bringUpToDate(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      return Napi::Boolean::New(info.Env(), core_->bringUpToDate(countArgument(info, 0)));
    });
  }

  Napi::Value wrongLive(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      const auto wrong = core_->wrongLive();
      if (!wrong.has_value()) return info.Env().Undefined();
      return makeWords(info.Env(), *wrong);
    });
  }

  Napi::Value checkLive(Info info) {
    return guarded(info, [&] {
      return Promised<CheckJob>::start(info.Env(), core_->checkLive(), "ebbtide.checkLive", core_->isSmall());
    });
  }

  Napi::Value garbageByType(Info info) {
    return guarded(info, [&] { return makeWords(info.Env(), core_->garbageByType()); });
  }

  Napi::Value garbage(Info info) {
    return guarded(info, [&] {
      return makeWords(info.Env(), core_->garbage(countArgument(info, 0), countArgument(info, 1)));
    });
  }

  Napi::Value freshGarbage(Info info) {
    return guarded(info, [&] { return makeWords(info.Env(), core_->freshGarbage()); });
  }

  Napi::Value endRun(Info info) {
    return guarded(info, [&] {
      core_->endRun();
      return info.Env().Undefined();
    });
  }

  Napi::Value takeFreeable(Info info) {
    return guarded(info, [&] { return makeWords(info.Env(), core_->takeFreeable()); });
  }

  Napi::Value unusedIds(Info info) {
    return guarded(info, [&] {
      return makeWords(info.Env(), core_->graph().unused(countArgument(info, 0), countArgument(info, 1)));
    });
  }

  Napi::Value withFlags(Info info) {
    return guarded(info, [&] {
      const uint64_t flags = countArgument(info, 0);
      if (flags > kMaxFlags) return makeWords(info.Env(), {});
      return makeWords(info.Env(), core_->graph().withFlags(static_cast<uint32_t>(flags)));
    });
  }

  Napi::Value flagsOf(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      return Napi::Number::New(info.Env(), core_->graph().flags(idArgument(info, 0)));
    });
  }

  Napi::Value inDegreeOf(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      return Napi::Number::New(info.Env(), std::min(core_->graph().inDegree(idArgument(info, 0)), 255u));
    });
  }

  Napi::Value expiryOf(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      const auto expiry = core_->graph().expiry(idArgument(info, 0));
      if (!expiry.has_value()) return info.Env().Undefined();
      return Napi::BigInt::New(info.Env(), *expiry);
    });
  }

  Napi::Value edgesOf(Info info) {
    return guarded(info, [&] { return makeWords(info.Env(), core_->graph().edgePairs(idArgument(info, 0))); });
  }

  Napi::Value rows(Info info) {
    return guarded(info, [&] {
      return makeWords(info.Env(), core_->graph().rows(countArgument(info, 0), countArgument(info, 1)));
    });
  }

  Napi::Value path(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      const auto path = shortestPath(core_->graph(), idArgument(info, 0), timeArgument(info, 1));
      if (path.empty()) return info.Env().Undefined();
      return makeWords(info.Env(), path);
    });
  }

  // Returns { promise, cancel }.
  Napi::Value retained(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      RetainedQuery query{timeArgument(info, 0),  wordsArgument(info, 1), doublesArgument(info, 2),
                          wordsArgument(info, 3), wordsArgument(info, 4), wordsArgument(info, 5),
                          wordsArgument(info, 6)};
      const bool atOnce = core_->isSmall(query);
      auto job = core_->retained(std::move(query));
      const auto cancel = [builder = job->builder()](Info call) {
        builder->cancelled = true;
        return call.Env().Undefined();
      };
      Napi::Object result = Napi::Object::New(info.Env());
      result.Set("cancel", Napi::Function::New(info.Env(), cancel, "cancel"));
      result.Set("promise", Promised<RetainedJob>::start(info.Env(), std::move(job), "ebbtide.retained", atOnce));
      return result;
    });
  }

  Napi::Value save(Info info) {
    return guarded(info, [&] {
      return Promised<SaveJob>::start(info.Env(), core_->save(), "ebbtide.save", core_->isSmall());
    });
  }

  Napi::Value load(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      return Napi::Boolean::New(info.Env(), core_->load(arrayArgument(info, 0, napi_uint8_array)));
    });
  }

  Napi::Value stats(Info info) {
    return guarded(info, [&]() -> Napi::Value {
      const Graph& graph = core_->graph();
      Napi::Object object = Napi::Object::New(info.Env());
      object.Set("nodes", graph.nodeCount());
      object.Set("edges", static_cast<double>(graph.edgeCount()));
      object.Set("limit", graph.limit());
      object.Set("bytes", static_cast<double>(core_->bytes()));
      object.Set("hasLiveMarks", core_->hasLive());
      return object;
    });
  }

  Napi::Value clear(Info info) {
    return guarded(info, [&] {
      core_->clear();
      return info.Env().Undefined();
    });
  }

  std::shared_ptr<Core> core_;
};

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("Graph", GraphObject::define(env));
  return exports;
}

}  // namespace
}  // namespace ebbtide

static Napi::Object initialize(Napi::Env env, Napi::Object exports) { return ebbtide::initialize(env, exports); }
NODE_API_MODULE(ebbtide_core, initialize)
