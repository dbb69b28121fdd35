// Short runs of file system calls as one job of Node's thread pool, for operations that would otherwise cross between
// threads once a call. Wrapped by src/backends/steps.ts, which also says what each step does.
//
// Contract: `steps(list)` answers a promise of an array with one number a step that was carried out: 0 or what the step
// answers (a descriptor, a size), or a negative errno. A failed step ends the run unless it is optional. Wrong arguments
// throw a TypeError before anything is done.
//
// Threads: any JavaScript thread may call; the steps run on a pool thread, in order. Nothing is shared between runs.
#pragma once

#include <napi.h>

namespace ebbtide {

Napi::Value runSteps(const Napi::CallbackInfo& info);

}  // namespace ebbtide
