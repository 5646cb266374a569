/*
** Recent changes: a ring in shared memory in which committers leave what they changed, so that others need not
** ask the engine for it.  Written by pagestore/engines/sqlite.py (through heads.py and cffi; store.h has
** the functions), read by position.c; this file and recent.c are part of both modules.
**
** It is a cache of the changelog's end, and it is allowed to know nothing.  What it must never do is to show
** what was not committed, or to leave out what was:
**
** 1. `sequence` is odd from before a committer touches the ring until his commit is visible; he is the only one
**    meanwhile, by the engine's write lock.  Readers want it even, and the same before and after.
** 2. A committer that died, or failed, leaves it odd.  Nobody knows then whether the last group of entries was
**    committed: the next committer makes them void before he adds his own.
** 3. An entry names the version before it: a reader who stands at an older one misses something.
** 4. An entry names the odd head word (words.c) under which it was committed: if the newest entry of a namespace
**    is not of the word's last step, then someone committed who left nothing here.
** 5. A reader who finds any of this amiss, or that the ring has gone past him, asks the engine.
**
** Numbers are native-endian: like the head words, the ring is of one machine and need not survive a crash.
** What an earlier boot left in it is never read: readers start at its end.
*/
#ifndef MV_RECENT_H
#define MV_RECENT_H

#include <stdatomic.h>
#include <stdint.h>

#define MV_RECENT_WORDS 32768u /* of 4 bytes: some 1,500 small commits */

typedef struct mv_recent {
  _Atomic uint64_t sequence;
  _Atomic uint64_t tail;  /* words ever written; an entry's place is its position modulo the ring's size */
  _Atomic uint64_t group; /* where the last committer's entries begin */
  uint64_t spare[5];
  _Atomic uint32_t words[MV_RECENT_WORDS];
} mv_recent;

uint64_t mv_recent_tail(const mv_recent *ring);

/* What was committed to a namespace after version `after`, oldest first, packed (`Changes` in
** pagestore/api.py), as long as it fits into `room` words.  `word` is the namespace's head word, `at` where
** to start looking: some earlier tail; moves on to the newest entry.  0: the engine must be asked.  Else
** the head word, which is even: nothing but these commits came before it had this value.  */
uint64_t mv_recent_read(const mv_recent *ring, const _Atomic uint64_t *word, uint64_t *at, uint64_t namespace_id,
                        const uint8_t after[10], uint32_t *out, uint32_t room, uint32_t *count);

#endif
