/* Lengthens and counts flushes: preloaded (LD_PRELOAD) into every process that a benchmark measures.
**
** How long a flush takes differs by a factor of twenty between disks, and from minute to minute on one.
** With every fsync and fdatasync followed by the same sleep, both sides of a comparison pay what a cloud
** disk costs, and the figures repeat.  Called by whatever flushes in the process: SQLite's own code, which
** apsw's wheel links statically but which calls libc, and Python's os.fsync and os.fdatasync.
**
** 1. A flush that failed is passed on with its errno, at once: nothing is hidden.
** 2. The sleep comes after the real flush and holds no lock: flushes of several threads and processes
**    overlap as they do on a real disk.
** 3. FLUSH_DELAY_US (microseconds, default 0) is read once, when the process starts.
*/
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

typedef int (*flush_fn)(int);

static flush_fn real_fsync;
static flush_fn real_fdatasync;
static struct timespec delay;
static atomic_uint_fast64_t flushes;

static flush_fn next_symbol(const char *name) {
  flush_fn function;
  void *symbol = dlsym(RTLD_NEXT, name);
  if (symbol == NULL) {
    abort();
  }
  *(void **)&function = symbol; /* POSIX's spelling: ISO C has no cast from an object to a function */
  return function;
}

__attribute__((constructor)) static void flush_delay_init(void) {
  const char *text = getenv("FLUSH_DELAY_US");
  long microseconds = text == NULL ? 0 : strtol(text, NULL, 10);
  if (microseconds > 0) {
    delay.tv_sec = microseconds / 1000000;
    delay.tv_nsec = microseconds % 1000000 * 1000;
  }
  real_fsync = next_symbol("fsync");
  real_fdatasync = next_symbol("fdatasync");
}

static int flush(flush_fn real, int fd) {
  struct timespec left = delay;
  int result = real(fd);
  if (result != 0) {
    return result;
  }
  atomic_fetch_add_explicit(&flushes, 1, memory_order_relaxed);
  if (left.tv_sec != 0 || left.tv_nsec != 0) {
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
  }
  return 0;
}

/* Flushes of this process that succeeded so far: bench.flush reads it through ctypes. */
__attribute__((visibility("default"))) uint64_t flush_delay_count(void) {
  return atomic_load_explicit(&flushes, memory_order_relaxed);
}

__attribute__((visibility("default"))) int fsync(int fd) { return flush(real_fsync, fd); }

__attribute__((visibility("default"))) int fdatasync(int fd) { return flush(real_fdatasync, fd); }
