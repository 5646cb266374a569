/*
** Preloaded into a process, it makes every write to a regular file fail with ENOSPC for as long as the
** file named by MV_TEST_DISK_FULL exists.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int fd) {
  const char *flag = getenv("MV_TEST_DISK_FULL");
  struct stat s;
  return flag && access(flag, F_OK) == 0 && fstat(fd, &s) == 0 && S_ISREG(s.st_mode);
}

#define REFUSE(fd) if (is_full(fd)) return errno = ENOSPC, -1
#define REAL(type, name) ((type)dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) {
  REFUSE(fd);
  return REAL(ssize_t (*)(int, const void *, size_t), write)(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  REFUSE(fd);
  return REAL(ssize_t (*)(int, const void *, size_t, off_t), pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  REFUSE(fd);
  return REAL(ssize_t (*)(int, const void *, size_t, off64_t), pwrite64)(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  REFUSE(fd);
  return REAL(ssize_t (*)(int, const struct iovec *, int), writev)(fd, parts, count);
}
int posix_fallocate(int fd, off_t at, off_t size) {
  if (is_full(fd)) return ENOSPC;
  return REAL(int (*)(int, off_t, off_t), posix_fallocate)(fd, at, size);
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
  if (is_full(fd)) return ENOSPC;
  return REAL(int (*)(int, off64_t, off64_t), posix_fallocate64)(fd, at, size);
}
