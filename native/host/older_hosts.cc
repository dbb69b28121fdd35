// Lets an addon that was built with a newer C++ library load with an older one: Debian 11's, of GCC 10 and glibc
// 2.31.
//
// What exceeds that is defined here; native/build.mjs --prebuild reports what is missing. Threads: constants only.
#include <new>

// libstdc++'s headers ask the C library (2.32) whether there is one thread only, to avoid atomic counting. Always
// false here.
extern "C" __attribute__((visibility("hidden"))) char ebbtide_single_threaded;
char ebbtide_single_threaded = 0;

namespace std {

// Of GCC 11, whose headers call it.
__attribute__((visibility("hidden"))) void __throw_bad_array_new_length() { throw bad_array_new_length(); }

}  // namespace std
