// Assertions of the debug build (`node test/native/debug/build.mjs`, -DEBBTIDE_DEBUG). Elsewhere they are nothing: neither code
// nor members. One that does not hold ends the process with its text, so that a test shows it.
#pragma once

#ifdef EBBTIDE_DEBUG
#include <cstdio>
#include <cstdlib>

#define EBBTIDE_ASSERT(condition, what)                                                             \
  do {                                                                                              \
    if (!(condition)) {                                                                             \
      std::fprintf(stderr, "ebbtide: assertion failed: %s (%s:%d)\n", what, __FILE__, __LINE__);    \
      std::abort();                                                                                 \
    }                                                                                               \
  } while (false)
#else
#define EBBTIDE_ASSERT(condition, what) static_cast<void>(0)
#endif
