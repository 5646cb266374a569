/*
** Where a transaction's writes go beyond what it may keep in memory: a temporary file, mapped.
** Used by pages.c: the content of a page in the write set lies here or on the heap.
**
** 1. The file is this connection's alone: it has no name by the time that it is written.
** 2. Its room is allocated before it is mapped: a full disk is an error of mv_spill_room(), not a signal
**    later.  (Not where a file system copies on write and can't promise room, as ZFS.)
** 3. What lies here stays where it is until mv_spill_end().
*/
#ifndef MV_SPILL_H
#define MV_SPILL_H

#include <stdint.h>

typedef struct mv_spill_chunk mv_spill_chunk;

typedef struct mv_spill { /* all zero: nothing was spilled */
  mv_spill_chunk *chunks; /* newest first */
  int file;               /* if there are any */
  uint64_t size;          /* of the file, bytes */
  uint32_t touched;       /* how often something was looked at since it all left memory */
} mv_spill;

/* For at most 64 KiB; NULL: errno says why. */
uint8_t *mv_spill_room(mv_spill *s, uint32_t size);
/* Something that lies here is about to be read or written. */
void mv_spill_touch(mv_spill *s);
/* All of it may leave memory until it is looked at again. */
void mv_spill_cool(mv_spill *s);
void mv_spill_end(mv_spill *s);

#endif
