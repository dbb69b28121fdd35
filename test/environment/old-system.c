// Preloaded: with EBBTIDE_TEST_OLD_FILTER the system calls are refused (EPERM) that filters of containers do not know which are older than
// they; with EBBTIDE_TEST_NO_TYPES no file system returns the types of directory entries; with EBBTIDE_TEST_NO_NAMES none flushes directories.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define REFUSE(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

__attribute__((constructor)) static void begin(void) {
  if (getenv("EBBTIDE_TEST_OLD_FILTER") == NULL) return;
  static struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    REFUSE(SYS_statx),
    REFUSE(SYS_copy_file_range),
    REFUSE(SYS_renameat2),
    REFUSE(SYS_memfd_create),
    REFUSE(425), /* io_uring_setup */
    REFUSE(436), /* close_range */
    REFUSE(437), /* openat2 */
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  static const struct sock_fprog program = { sizeof filter / sizeof filter[0], filter };
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) abort();
}

#define WITHOUT_TYPES(name, entry) \
  struct entry *name(DIR *dir) { \
    static struct entry *(*next)(DIR *); \
    if (next == NULL) next = (struct entry * (*)(DIR *)) dlsym(RTLD_NEXT, #name); \
    struct entry *found = next(dir); \
    if (found != NULL && getenv("EBBTIDE_TEST_NO_TYPES") != NULL) found->d_type = DT_UNKNOWN; \
    return found; \
  }

WITHOUT_TYPES(readdir, dirent)
WITHOUT_TYPES(readdir64, dirent64)

int fsync(int fd) {
  static int (*next)(int);
  if (next == NULL) next = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
  struct stat found;
  if (getenv("EBBTIDE_TEST_NO_NAMES") != NULL && fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) {
    errno = EINVAL;
    return -1;
  }
  return next(fd);
}
