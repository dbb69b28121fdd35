// So that an addon built with a newer C++ library loads where an older one is: Debian 11's, of GCC 10 and glibc 2.31.
//
// Whoever needs more than that has it here; native/build.mjs --prebuild says what it is. Threads: constants only.
#include <new>

// libstdc++'s headers ask the C library (2.32) whether there is one thread only, to spare atomic counting. Never, here.
extern "C" __attribute__((visibility("hidden"))) char ebbtide_single_threaded;
char ebbtide_single_threaded = 0;

namespace std {

// GCC 11's, of which its headers make calls.
__attribute__((visibility("hidden"))) void __throw_bad_array_new_length() { throw bad_array_new_length(); }

}  // namespace std
