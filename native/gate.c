/*
** The gate: where those who wait for the engine's write lock sleep until somebody lets go of it.
**
** Called by pagestore/engines/heads.py through cffi.  The gate is a 32-bit counter in the mapped file of
** head words, shared by all processes that have the store open: whoever has let go of the lock opens the
** gate (counts one up, wakes one sleeper).  The lock itself is SQLite's; the gate only says when to try.
**
** 1. Who waits looks at the gate before it tries the lock, and sleeps only while the gate is as it was then:
**    a lock that was let go in between is tried again at once.
** 2. Nobody sleeps longer than he says: a sleeper that was woken and died, or a holder that was killed, costs
**    the others that time and nothing else.  Nothing is owned here, so nothing is left behind by a fork.
** 3. Whether the one that is woken gets the lock is not promised: others may be quicker, and he waits again.
**
** Where there are no futexes (not Linux), a wait is a short sleep.
*/
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "store.h"

#define SHORT_US 100

typedef _Atomic uint32_t gate;

_Static_assert(sizeof(gate) == 4, "the kernel looks at four bytes");

static gate *at(uint64_t address) { return (gate *)(uintptr_t)address; }

static struct timespec interval(uint32_t us) {
  return (struct timespec){.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
}

uint32_t mv_gate_look(uint64_t address) { return atomic_load(at(address)); }

/* Sleep until the gate is not what it was when looked at, for at most `us` (microseconds); a signal ends it
** too.  What it is now. */
uint32_t mv_gate_wait(uint64_t address, uint32_t looked, uint32_t us) {
#ifdef __linux__
  struct timespec most = interval(us);
  syscall(SYS_futex, at(address), FUTEX_WAIT, looked, &most, NULL, 0);
#else
  struct timespec nap = interval(us < SHORT_US ? us : SHORT_US);
  if (atomic_load(at(address)) == looked) nanosleep(&nap, NULL);
#endif
  return atomic_load(at(address));
}

void mv_gate_open(uint64_t address) {
  atomic_fetch_add(at(address), 1);
#ifdef __linux__
  syscall(SYS_futex, at(address), FUTEX_WAKE, 1, NULL, NULL, 0);
#endif
}
