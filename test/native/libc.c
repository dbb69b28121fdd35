/*
 * Loaded before the C library (sys.test.ts): what mknod(2) makes is a link by the time of the call after it, as somebody else
 * can bring about; EBBTIDE_OLD_LIBC: a C library and a kernel that cannot change the mode of what is at a path itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_old(void) { return getenv("EBBTIDE_OLD_LIBC") != NULL; }

int fchmodat(int dir, const char *path, mode_t mode, int flags) {
  static int (*real)(int, const char *, mode_t, int);
  if (real == NULL) real = (int (*)(int, const char *, mode_t, int))dlsym(RTLD_NEXT, "fchmodat");
  if (is_old() && (flags & AT_SYMLINK_NOFOLLOW) != 0) {
    errno = ENOTSUP;
    return -1;
  }
  return real(dir, path, mode, flags);
}

long syscall(long number, ...) {
  static long (*real)(long, ...);
  if (real == NULL) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  long a[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  if (number == SYS_mknodat && strstr((const char *)a[1], "/replaced") != NULL) return symlink("victim", (const char *)a[1]);
  if (is_old() && number == 452 /* fchmodat2 */) {
    errno = ENOSYS;
    return -1;
  }
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
