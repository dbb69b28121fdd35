// The lock between the owner of a graph and the threads of its jobs (core.h).
//
// In WebAssembly there is one thread only, and locking does nothing.
#pragma once

#if !defined(__wasm__)
#include <mutex>
#include <thread>
#endif
#ifdef EBBTIDE_DEBUG
#include <atomic>
#endif

namespace ebbtide {

#if defined(__wasm__)
struct Mutex {
  void lock() {}
  void unlock() {}
};
inline void yieldThread() {}
#else
#ifdef EBBTIDE_DEBUG
// Knows who holds it, for assertions.
class Mutex {
 public:
  void lock() {
    mutex_.lock();
    holder_ = std::this_thread::get_id();
  }
  void unlock() {
    holder_ = std::thread::id();
    mutex_.unlock();
  }
  bool isHeldHere() const { return holder_ == std::this_thread::get_id(); }

 private:
  std::mutex mutex_;
  std::atomic<std::thread::id> holder_;
};
#else
using Mutex = std::mutex;
#endif
// Lets another thread that waits for the lock run.
inline void yieldThread() { std::this_thread::yield(); }
#endif

// Holds the lock as long as it lives.
class Locked {
 public:
  explicit Locked(Mutex& mutex) : mutex_(mutex) { mutex_.lock(); }
  ~Locked() { mutex_.unlock(); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace ebbtide
