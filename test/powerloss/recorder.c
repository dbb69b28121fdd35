/*
 * Records what a process does to the files below one directory, for the power-loss test: every write with its
 * bytes, every flush, every name made, changed or removed, in one order over all threads.
 *
 * Loaded with LD_PRELOAD. Environment: POWERLOSS_ROOT (directory, absolute), POWERLOSS_LOG (file the records go to),
 * POWERLOSS_MARK (path whose writes are kept as the test's own marks; it need not be below the root).
 *
 * Order: a call that changes something runs and is recorded under one lock, so the log has the order in which the
 * kernel saw the calls. A flush is long: it is recorded when it begins and when it has ended, and runs unlocked.
 * With POWERLOSS_NO_FLUSH instead of these, nothing is recorded and flushes do nothing, for stores that are thrown away.
 *
 * What cannot be replayed from such a log (writable shared maps, copies inside the kernel) is recorded as such, and
 * the reader of the log judges. Durations, times and permissions are not recorded.
 *
 * A record (little-endian): u8 kind, u8 flags, u16 zero, i32 fd, u64 offset, u32 length, u32 length, then the bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
  OPEN = 1, CLOSE, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, RENAME, LINK, UNLINK, MKDIR, RMDIR, MARK, SHARED_MAP,
  UNSUPPORTED, SYMLINK
};
enum open_flag { CREATED = 1, SYNCHRONOUS = 2, TRUNCATED = 4 };

#define FDS_MAX 65536
#define TRACKED 1
#define MARKS 2
#define APPENDS 4
#define WRITES_THROUGH 8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char fds[FDS_MAX];
static char root[4096], mark[4096];
static size_t root_length;
static int log_fd = -1, no_flush = 0;

#define REAL(type, name, ...) \
  static type (*real_##name)(__VA_ARGS__); \
  if (real_##name == NULL) real_##name = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static void die(const char *what) {
  dprintf(2, "recorder: %s: %s\n", what, strerror(errno));
  _exit(99);
}

__attribute__((constructor)) static void begin(void) {
  const char *dir = getenv("POWERLOSS_ROOT"), *log = getenv("POWERLOSS_LOG"), *marks = getenv("POWERLOSS_MARK");
  no_flush = getenv("POWERLOSS_NO_FLUSH") != NULL;
  if (dir == NULL || log == NULL) return;
  snprintf(root, sizeof root, "%s", dir);
  root_length = strlen(root);
  if (marks != NULL) snprintf(mark, sizeof mark, "%s", marks);
  log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log_fd < 0) die("open the log");
}

static void put(const void *data, size_t length) {
  const char *at = data;
  while (length > 0) {
    ssize_t n = syscall(SYS_write, log_fd, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) die("write the log");
    at += n;
    length -= (size_t)n;
  }
}

struct __attribute__((packed)) head {
  uint8_t kind, flags;
  uint16_t zero;
  int32_t fd;
  uint64_t offset;
  uint32_t first, second;
};

/* Under the lock. */
static void record(enum kind kind, int flags, int fd, uint64_t offset, const void *a, size_t an, const void *b,
                   size_t bn) {
  struct head head = {(uint8_t)kind, (uint8_t)flags, 0, fd, offset, (uint32_t)an, (uint32_t)bn};
  int saved = errno;
  put(&head, sizeof head);
  if (an > 0) put(a, an);
  if (bn > 0) put(b, bn);
  errno = saved;
}

static int below_root(const char *path) {
  return log_fd >= 0 && path != NULL && strncmp(path, root, root_length) == 0 &&
         (path[root_length] == '/' || path[root_length] == 0);
}

/*
 * The name of what a path through an open directory (/proc/self/fd/7/name) leads to; other paths as they are. The name of
 * the directory is what the kernel calls it now.
 */
struct resolved { char path[8192]; };
static const char *resolve(const char *path, struct resolved *to) {
  static const char through[] = "/proc/self/fd/";
  if (log_fd < 0 || path == NULL || strncmp(path, through, sizeof through - 1) != 0) return path;
  const char *rest = strchr(path + sizeof through - 1, '/');
  char link[64];
  size_t length = rest == NULL ? strlen(path) : (size_t)(rest - path);
  if (length >= sizeof link) return path;
  memcpy(link, path, length);
  link[length] = 0;
  int saved = errno;
  ssize_t n = readlink(link, to->path, sizeof to->path / 2);
  errno = saved;
  if (n <= 0 || to->path[0] != '/') return path;
  snprintf(to->path + n, sizeof to->path - (size_t)n, "%s", rest == NULL ? "" : rest);
  return to->path;
}

static int state_of(int fd) { return log_fd >= 0 && fd >= 0 && fd < FDS_MAX ? fds[fd] : 0; }

static void enter(void) { pthread_mutex_lock(&lock); }
static void leave(void) {
  int saved = errno;
  pthread_mutex_unlock(&lock);
  errno = saved;
}

static void unsupported(int fd, const char *what) {
  enter();
  record(UNSUPPORTED, 0, fd, 0, what, strlen(what), NULL, 0);
  leave();
}

/* ------------------------------------------------------------------------------------------------ descriptors */

static int open_recorded(int (*call)(const char *, int, ...), const char *given, int flags, mode_t mode) {
  struct resolved to;
  const char *path = resolve(given, &to);
  int marks = log_fd >= 0 && mark[0] != 0 && strcmp(path, mark) == 0;
  if (no_flush) flags &= ~(O_SYNC | O_DSYNC);
  if (!marks && !below_root(path)) return call(given, flags, mode);
  if ((flags & O_TMPFILE) == O_TMPFILE) unsupported(-1, "O_TMPFILE");
  enter();
  int existed = (flags & O_CREAT) == 0 || faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
  int fd = call(given, flags, mode);
  if (fd >= FDS_MAX) die("too many descriptors");
  if (fd >= 0) {
    int through = (flags & (O_SYNC | O_DSYNC)) != 0;
    fds[fd] = marks ? MARKS : TRACKED | (flags & O_APPEND ? APPENDS : 0) | (through ? WRITES_THROUGH : 0);
    int how = (existed ? 0 : CREATED) | (through ? SYNCHRONOUS : 0) | (flags & O_TRUNC ? TRUNCATED : 0);
    if (!marks) record(OPEN, how, fd, 0, path, strlen(path), NULL, 0);
  }
  leave();
  return fd;
}

#define OPEN_CALL(name) \
  int name(const char *path, int flags, ...) { \
    REAL(int, name, const char *, int, ...); \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
      va_list list; \
      va_start(list, flags); \
      mode = va_arg(list, mode_t); \
      va_end(list); \
    } \
    return open_recorded(real_##name, path, flags, mode); \
  }
OPEN_CALL(open)
OPEN_CALL(open64)

int close(int fd) {
  REAL(int, close, int);
  int state = state_of(fd);
  if (state == 0) return real_close(fd);
  enter();
  fds[fd] = 0;
  if (state & TRACKED) record(CLOSE, 0, fd, 0, NULL, 0, NULL, 0);
  int result = real_close(fd);
  leave();
  return result;
}

int dup2(int from, int to) {
  REAL(int, dup2, int, int);
  if (state_of(from) & TRACKED) unsupported(from, "dup2");
  return real_dup2(from, to);
}

int dup3(int from, int to, int flags) {
  REAL(int, dup3, int, int, int);
  if (state_of(from) & TRACKED) unsupported(from, "dup3");
  return real_dup3(from, to, flags);
}

/* ------------------------------------------------------------------------------------------------------ bytes */

static uint64_t position(int fd, int state) {
  off_t at = lseek(fd, 0, state & APPENDS ? SEEK_END : SEEK_CUR);
  return at < 0 ? 0 : (uint64_t)at;
}

static void wrote(int fd, int state, uint64_t offset, const struct iovec *parts, int count, ssize_t done) {
  if (done <= 0) return;
  char *all = malloc((size_t)done);
  if (all == NULL) die("out of memory");
  size_t left = (size_t)done, at = 0;
  for (int i = 0; i < count && left > 0; i++) {
    size_t n = parts[i].iov_len < left ? parts[i].iov_len : left;
    memcpy(all + at, parts[i].iov_base, n);
    at += n;
    left -= n;
  }
  if (state & MARKS) record(MARK, 0, fd, 0, all, at, NULL, 0);
  else record(WRITE, state & WRITES_THROUGH ? SYNCHRONOUS : 0, fd, offset, all, at, NULL, 0);
  free(all);
}

ssize_t write(int fd, const void *data, size_t length) {
  REAL(ssize_t, write, int, const void *, size_t);
  int state = state_of(fd);
  if (state == 0) return real_write(fd, data, length);
  enter();
  uint64_t at = position(fd, state);
  ssize_t done = real_write(fd, data, length);
  struct iovec part = {(void *)data, length};
  wrote(fd, state, at, &part, 1, done);
  leave();
  return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  int state = state_of(fd);
  if (state == 0) return real_writev(fd, parts, count);
  enter();
  uint64_t at = position(fd, state);
  ssize_t done = real_writev(fd, parts, count);
  wrote(fd, state, at, parts, count, done);
  leave();
  return done;
}

#define PWRITE_CALL(name) \
  ssize_t name(int fd, const void *data, size_t length, off_t offset) { \
    REAL(ssize_t, name, int, const void *, size_t, off_t); \
    int state = state_of(fd); \
    if (state == 0) return real_##name(fd, data, length, offset); \
    enter(); \
    ssize_t done = real_##name(fd, data, length, offset); \
    struct iovec part = {(void *)data, length}; \
    wrote(fd, state, (uint64_t)offset, &part, 1, done); \
    leave(); \
    return done; \
  }
PWRITE_CALL(pwrite)
PWRITE_CALL(pwrite64)

#define PWRITEV_CALL(name) \
  ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) { \
    REAL(ssize_t, name, int, const struct iovec *, int, off_t); \
    int state = state_of(fd); \
    if (state == 0) return real_##name(fd, parts, count, offset); \
    enter(); \
    ssize_t done = real_##name(fd, parts, count, offset); \
    wrote(fd, state, (uint64_t)offset, parts, count, done); \
    leave(); \
    return done; \
  }
PWRITEV_CALL(pwritev)
PWRITEV_CALL(pwritev64)

#define FTRUNCATE_CALL(name) \
  int name(int fd, off_t length) { \
    REAL(int, name, int, off_t); \
    if ((state_of(fd) & TRACKED) == 0) return real_##name(fd, length); \
    enter(); \
    int result = real_##name(fd, length); \
    if (result == 0) record(TRUNCATE, 0, fd, (uint64_t)length, NULL, 0, NULL, 0); \
    leave(); \
    return result; \
  }
FTRUNCATE_CALL(ftruncate)
FTRUNCATE_CALL(ftruncate64)

#define SYNC_CALL(name) \
  int name(int fd) { \
    REAL(int, name, int); \
    if (no_flush) return 0; \
    if ((state_of(fd) & TRACKED) == 0) return real_##name(fd); \
    enter(); \
    record(SYNC_BEGIN, 0, fd, 0, NULL, 0, NULL, 0); \
    leave(); \
    int result = real_##name(fd); \
    enter(); \
    record(SYNC_END, result == 0, fd, 0, NULL, 0, NULL, 0); \
    leave(); \
    return result; \
  }
SYNC_CALL(fsync)
SYNC_CALL(fdatasync)

#define MMAP_CALL(name) \
  void *name(void *at, size_t length, int protection, int flags, int fd, off_t offset) { \
    REAL(void *, name, void *, size_t, int, int, int, off_t); \
    void *result = real_##name(at, length, protection, flags, fd, offset); \
    int shared = (flags & MAP_TYPE) == MAP_SHARED || (flags & MAP_TYPE) == MAP_SHARED_VALIDATE; \
    if (shared && (protection & PROT_WRITE) && (state_of(fd) & TRACKED)) { \
      enter(); \
      record(SHARED_MAP, 0, fd, 0, NULL, 0, NULL, 0); \
      leave(); \
    } \
    return result; \
  }
MMAP_CALL(mmap)
MMAP_CALL(mmap64)

#define FALLOCATE_CALL(name) \
  int name(int fd, int mode, off_t offset, off_t length) { \
    REAL(int, name, int, int, off_t, off_t); \
    /* Blocks ahead change neither bytes nor size. */ \
    if (mode != FALLOC_FL_KEEP_SIZE && (state_of(fd) & TRACKED)) unsupported(fd, "fallocate"); \
    return real_##name(fd, mode, offset, length); \
  }
FALLOCATE_CALL(fallocate)
FALLOCATE_CALL(fallocate64)

int sync_file_range(int fd, off64_t offset, off64_t length, unsigned int flags) {
  REAL(int, sync_file_range, int, off64_t, off64_t, unsigned int);
  /* It promises nothing about a power loss, so there is nothing to record. */
  return real_sync_file_range(fd, offset, length, flags);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) {
  REAL(ssize_t, sendfile64, int, int, off64_t *, size_t);
  if (state_of(to) & TRACKED) unsupported(to, "sendfile");
  return real_sendfile64(to, from, offset, count);
}

/* Calls without a wrapper. A submission queue would go past this library, so there is none. */
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
  /* libuv closes this way. */
  if (number == SYS_close) return close((int)a[0]);
#ifdef SYS_copy_file_range
  if (number == SYS_copy_file_range && (state_of((int)a[2]) & TRACKED)) unsupported((int)a[2], "copy_file_range");
#endif
  return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ------------------------------------------------------------------------------------------------------ names */

static int named(enum kind kind, int result, const char *a, const char *b) {
  if (result == 0) record(kind, 0, -1, 0, a, strlen(a), b, b == NULL ? 0 : strlen(b));
  return result;
}

int mkdir(const char *given, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t);
  struct resolved to;
  const char *path = resolve(given, &to);
  if (!below_root(path)) return real_mkdir(given, mode);
  enter();
  int result = named(MKDIR, real_mkdir(given, mode), path, NULL);
  leave();
  return result;
}

char *mkdtemp(char *given) {
  REAL(char *, mkdtemp, char *);
  struct resolved to;
  if (!below_root(resolve(given, &to))) return real_mkdtemp(given);
  enter();
  char *result = real_mkdtemp(given);
  if (result != NULL) named(MKDIR, 0, resolve(given, &to), NULL);
  leave();
  return result;
}

int rmdir(const char *given) {
  REAL(int, rmdir, const char *);
  struct resolved to;
  const char *path = resolve(given, &to);
  if (!below_root(path)) return real_rmdir(given);
  enter();
  int result = named(RMDIR, real_rmdir(given), path, NULL);
  leave();
  return result;
}

int unlink(const char *given) {
  REAL(int, unlink, const char *);
  struct resolved to;
  const char *path = resolve(given, &to);
  if (!below_root(path)) return real_unlink(given);
  enter();
  int result = named(UNLINK, real_unlink(given), path, NULL);
  leave();
  return result;
}

int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  struct resolved a, b;
  const char *old = resolve(from, &a), *new = resolve(to, &b);
  if (!below_root(old) && !below_root(new)) return real_rename(from, to);
  enter();
  int result = named(RENAME, real_rename(from, to), old, new);
  leave();
  return result;
}

int link(const char *from, const char *to) {
  REAL(int, link, const char *, const char *);
  struct resolved a, b;
  const char *old = resolve(from, &a), *new = resolve(to, &b);
  if (!below_root(old) && !below_root(new)) return real_link(from, to);
  enter();
  int result = named(LINK, real_link(from, to), old, new);
  leave();
  return result;
}

int symlink(const char *text, const char *given) {
  REAL(int, symlink, const char *, const char *);
  struct resolved to;
  const char *path = resolve(given, &to);
  if (!below_root(path)) return real_symlink(text, given);
  enter();
  int result = named(SYMLINK, real_symlink(text, given), path, text);
  leave();
  return result;
}
