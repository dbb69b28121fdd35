// Preloaded: no thread can start while the process has EBBTIDE_TEST_NO_THREADS in its environment, as at a limit on threads.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
  static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  if (getenv("EBBTIDE_TEST_NO_THREADS") != NULL) return EAGAIN;
  if (next == NULL) next = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
  return next(thread, attr, start, arg);
}
