/*
** Head words: 64-bit words in a mapped file, shared by all processes that have a store open.
**
** Called by pagestore/engines/heads.py through cffi, at each commit, and (mv_word_load) by tests; the VFS
** loads the words by itself.  An address is that of an aligned word in a mapping that the caller keeps.
**
** 1. Odd: a committer is about to make its commit visible, or died while it was.  Promises nothing.
** 2. Even: every commit that had begun when the word got this value was visible by then.
** 3. A word never goes back.  0 is that of a new file; who looks for changes makes it 2 first.
**
** mv_word_begin is called by one thread of one process at a time (under the engine's write lock),
** mv_word_end by any, after it.  So two committers' words may interleave, and an end that finds that
** the next committer has begun leaves the word alone: that one ends it.
*/
#include <stdatomic.h>
#include <stdint.h>

#include "store.h"

typedef _Atomic uint64_t word;

_Static_assert(sizeof(word) == 8, "a word is eight bytes");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words are shared between processes");

static word *at(uint64_t address) { return (word *)(uintptr_t)address; }

/* Have a word that is not 0, so that 0 can mean "not looked at yet". */
void mv_word_start(uint64_t address) {
  uint64_t fresh = 0;
  atomic_compare_exchange_strong(at(address), &fresh, 2);
}

uint64_t mv_word_load(uint64_t address) { return atomic_load(at(address)); }

/* Make the word the next odd number; returns it. */
uint64_t mv_word_begin(uint64_t address) {
  uint64_t odd = (atomic_load(at(address)) + 1) | 1;
  atomic_store(at(address), odd);
  return odd;
}

/* Make the word even again, unless another committer has begun since. */
void mv_word_end(uint64_t address, uint64_t odd) {
  atomic_compare_exchange_strong(at(address), &odd, odd + 1);
}
