/*
 * Makes one call to the file system fail, or all from one on, for the tests of a bad environment. Loaded with LD_PRELOAD.
 *
 * Environment: FAULTS_CONTROL, a file of `struct control`, which test and program have mapped or write to; FAULTS_ROOT,
 * the directory (absolute, real) below which calls are counted. Calls elsewhere pass.
 *
 * An error of KILLED ends the process there instead, as kill -9 does.
 *
 * Only calls that can fail with the error that is wanted count: a disk that is full does not refuse to read.
 * The names of flushes that failed stay in the control file: what was written before is lost, whatever a later flush says.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

enum call { READS = 1, MAKES = 2, CHANGES = 4, WRITES = 8, FLUSHES = 16, OPENS = 32, LOOKS = 64, ALLOCATES = 128, MAPS = 256 };

/* Beyond the errors that there are. */
enum { KILLED = 4096 };

struct control {
  uint32_t error;   /* 0: nothing fails */
  uint32_t calls;   /* bits of `enum call` that count */
  uint32_t at;      /* number of the call that fails, from 1; 0: none */
  uint32_t lasting; /* all calls from that one on */
  uint32_t count;   /* calls so far */
  uint32_t fired;   /* calls that failed */
  char what[232];   /* the first of them */
};

static struct control *control;
static char root[4096];
static size_t root_length;

#define REAL(type, name, ...) \
  static type (*real_##name)(__VA_ARGS__); \
  if (real_##name == NULL) real_##name = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
  const char *file = getenv("FAULTS_CONTROL"), *dir = getenv("FAULTS_ROOT");
  if (file == NULL || dir == NULL) return;
  int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (at == MAP_FAILED) return;
  snprintf(root, sizeof root, "%s", dir);
  root_length = strlen(root);
  control = at;
}

static int below_root(const char *path) {
  return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

/* The path of an open file; the name that a path through a descriptor stands for. */
static int name_of_fd(int fd, char *into, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long n = syscall(SYS_readlinkat, AT_FDCWD, link, into, size - 1);
  if (n < 0) return 0;
  into[n] = 0;
  return 1;
}

static int name_of(int dir, const char *path, char *into, size_t size) {
  static const char through[] = "/proc/self/fd/";
  if (path[0] != '/') {
    if (dir == AT_FDCWD || !name_of_fd(dir, into, size)) return 0;
    size_t n = strlen(into);
    snprintf(into + n, size - n, "/%s", path);
    return 1;
  }
  if (strncmp(path, through, sizeof through - 1) == 0) {
    char *rest;
    int fd = (int)strtol(path + sizeof through - 1, &rest, 10);
    if (!name_of_fd(fd, into, size)) return 0;
    size_t n = strlen(into);
    snprintf(into + n, size - n, "%s", rest);
    return 1;
  }
  snprintf(into, size, "%s", path);
  return 1;
}

static int fails_at(enum call call, const char *what, const char *name) {
  if (!below_root(name)) return 0;
  uint32_t n = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
  if (control->at == 0 || (control->lasting ? n < control->at : n != control->at)) return 0;
  if (__atomic_fetch_add(&control->fired, 1, __ATOMIC_SEQ_CST) == 0) {
    snprintf(control->what, sizeof control->what, "%s %s", what, name + root_length);
  }
  (void)call;
  if (control->error == KILLED) kill(getpid(), SIGKILL);
  errno = (int)control->error;
  return 1;
}

static int wanted(enum call call) { return control != NULL && control->error != 0 && (control->calls & call) != 0; }

static int fails(enum call call, const char *what, int dir, const char *path) {
  char name[8192];
  int saved = errno;
  if (!wanted(call) || path == NULL) return 0;
  if (name_of(dir, path, name, sizeof name) && fails_at(call, what, name)) return 1;
  errno = saved;
  return 0;
}

static int fails_fd(enum call call, const char *what, int fd) {
  char name[8192];
  int saved = errno;
  if (!wanted(call)) return 0;
  if (name_of_fd(fd, name, sizeof name) && fails_at(call, what, name)) return 1;
  errno = saved;
  return 0;
}

/* An open is one call, whichever of its sides counts. */
static int open_fails(int dir, const char *path, int flags) {
  int calls = OPENS | (flags & O_CREAT ? MAKES : 0) | ((flags & O_ACCMODE) != O_RDONLY ? CHANGES : 0);
  if (control == NULL || (flags & O_PATH)) return 0;
  enum call call = (enum call)(calls & (int)control->calls);
  /* A file that is there is not made. */
  if (call == MAKES && faccessat(dir, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) return 0;
  return fails(call, "open", dir, path);
}

#define OPEN_CALL(name) \
  int name(const char *path, int flags, ...) { \
    REAL(int, name, const char *, int, ...); \
    va_list list; \
    va_start(list, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
    va_end(list); \
    return open_fails(AT_FDCWD, path, flags) ? -1 : real_##name(path, flags, mode); \
  }
OPEN_CALL(open)
OPEN_CALL(open64)

#define OPENAT_CALL(name) \
  int name(int dir, const char *path, int flags, ...) { \
    REAL(int, name, int, const char *, int, ...); \
    va_list list; \
    va_start(list, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
    va_end(list); \
    return open_fails(dir, path, flags) ? -1 : real_##name(dir, path, flags, mode); \
  }
OPENAT_CALL(openat)
OPENAT_CALL(openat64)

DIR *opendir(const char *path) {
  REAL(DIR *, opendir, const char *);
  return fails(OPENS, "opendir", AT_FDCWD, path) ? NULL : real_opendir(path);
}

#define SCANDIR_CALL(name, entry) \
  int name(const char *path, struct entry ***list, int (*keep)(const struct entry *), \
           int (*order)(const struct entry **, const struct entry **)) { \
    REAL(int, name, const char *, struct entry ***, int (*)(const struct entry *), \
         int (*)(const struct entry **, const struct entry **)); \
    return fails(OPENS, "scandir", AT_FDCWD, path) ? -1 : real_##name(path, list, keep, order); \
  }
SCANDIR_CALL(scandir, dirent)
SCANDIR_CALL(scandir64, dirent64)

/* ------------------------------------------------------------------------------------- calls on an open file */

#define FD_CALL(type, name, call, parameters, arguments) \
  type name parameters { \
    static type (*real) parameters; \
    if (real == NULL) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
    return fails_fd(call, #name, fd) ? (type)-1 : real arguments; \
  }
FD_CALL(ssize_t, read, READS, (int fd, void *to, size_t n), (fd, to, n))
FD_CALL(ssize_t, readv, READS, (int fd, const struct iovec *to, int n), (fd, to, n))
FD_CALL(ssize_t, pread, READS, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
FD_CALL(ssize_t, pread64, READS, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at))
FD_CALL(ssize_t, preadv, READS, (int fd, const struct iovec *to, int n, off_t at), (fd, to, n, at))
FD_CALL(ssize_t, preadv64, READS, (int fd, const struct iovec *to, int n, off64_t at), (fd, to, n, at))
FD_CALL(ssize_t, write, WRITES, (int fd, const void *from, size_t n), (fd, from, n))
FD_CALL(ssize_t, writev, WRITES, (int fd, const struct iovec *from, int n), (fd, from, n))
FD_CALL(ssize_t, pwrite, WRITES, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at))
FD_CALL(ssize_t, pwrite64, WRITES, (int fd, const void *from, size_t n, off64_t at), (fd, from, n, at))
FD_CALL(ssize_t, pwritev, WRITES, (int fd, const struct iovec *from, int n, off_t at), (fd, from, n, at))
FD_CALL(ssize_t, pwritev64, WRITES, (int fd, const struct iovec *from, int n, off64_t at), (fd, from, n, at))
FD_CALL(int, ftruncate, WRITES, (int fd, off_t size), (fd, size))
FD_CALL(int, ftruncate64, WRITES, (int fd, off64_t size), (fd, size))
FD_CALL(int, fallocate, ALLOCATES, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
FD_CALL(int, fallocate64, ALLOCATES, (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n))
FD_CALL(int, fsync, FLUSHES, (int fd), (fd))
FD_CALL(int, fdatasync, FLUSHES, (int fd), (fd))
FD_CALL(int, fchmod, CHANGES, (int fd, mode_t mode), (fd, mode))
FD_CALL(int, fstatfs, LOOKS, (int fd, struct statfs *to), (fd, to))

#define MMAP_CALL(name, offset) \
  void *name(void *at, size_t length, int protection, int flags, int fd, offset from) { \
    REAL(void *, name, void *, size_t, int, int, int, offset); \
    if (fd >= 0 && fails_fd(MAPS, "mmap", fd)) return MAP_FAILED; \
    return real_##name(at, length, protection, flags, fd, from); \
  }
MMAP_CALL(mmap, off_t)
MMAP_CALL(mmap64, off64_t)

/* --------------------------------------------------------------------------------------------- calls on names */

#define PATH_CALL(type, name, call, parameters, arguments) \
  type name parameters { \
    static type (*real) parameters; \
    if (real == NULL) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
    return fails(call, #name, AT_FDCWD, path) ? (type)-1 : real arguments; \
  }
PATH_CALL(int, mkdir, MAKES, (const char *path, mode_t mode), (path, mode))
PATH_CALL(int, rmdir, CHANGES, (const char *path), (path))
PATH_CALL(int, unlink, CHANGES, (const char *path), (path))
PATH_CALL(int, rename, MAKES, (const char *path, const char *to), (path, to))
PATH_CALL(int, link, MAKES, (const char *from, const char *path), (from, path))
PATH_CALL(int, symlink, MAKES, (const char *text, const char *path), (text, path))
PATH_CALL(int, chmod, CHANGES, (const char *path, mode_t mode), (path, mode))
PATH_CALL(int, truncate, WRITES, (const char *path, off_t size), (path, size))
PATH_CALL(int, statfs, LOOKS, (const char *path, struct statfs *to), (path, to))
PATH_CALL(int, statfs64, LOOKS, (const char *path, struct statfs64 *to), (path, to))

char *mkdtemp(char *path) {
  REAL(char *, mkdtemp, char *);
  return fails(MAKES, "mkdtemp", AT_FDCWD, path) ? NULL : real_mkdtemp(path);
}

static int statx_fails(int dir, const char *path) {
  if (path != NULL && path[0] == 0) return fails_fd(LOOKS, "fstat", dir);
  return fails(LOOKS, "stat", dir, path);
}

int statx(int dir, const char *restrict path, int flags, unsigned int mask, struct statx *restrict to) {
  REAL(int, statx, int, const char *, int, unsigned int, struct statx *);
  return statx_fails(dir, path) ? -1 : real_statx(dir, path, flags, mask, to);
}

/* A submission queue would go past this library, so there is none. */
long syscall(long number, ...) {
  REAL(long, syscall, long, ...);
  long a[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
#ifdef SYS_io_uring_setup
  if (number == SYS_io_uring_setup) {
    errno = ENOSYS;
    return -1;
  }
#endif
#ifdef SYS_statx
  if (number == SYS_statx && statx_fails((int)a[0], (const char *)a[1])) return -1;
#endif
#ifdef SYS_copy_file_range
  if (number == SYS_copy_file_range && fails_fd(WRITES, "copy_file_range", (int)a[2])) return -1;
#endif
  return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
